"""Random numbers that follow from the place in a run, so that a resumed run draws what the whole one draws."""

import random
from contextlib import contextmanager
from inspect import signature
from itertools import count
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

_ITERATION, _SAMPLE, _ORDER = 0, 1, 2  # independent streams of random numbers
_ORDERING = ('dataset', 'batch_size', 'shuffle', 'sampler', 'batch_sampler', 'drop_last')
_OPTIONS = tuple(name for name in signature(DataLoader).parameters if name not in _ORDERING)
_END = object()


def seed_iteration(seed: int, iteration: int) -> None:
    """Seed Python, numpy and PyTorch, on all devices, for one training iteration of this process."""
    torch.manual_seed(_seed(seed, _ITERATION, get_rank(), iteration))


def seed_samples(loader: DataLoader, seed: int) -> DataLoader:
    """Return a :class:`SeededLoader` of a data loader; iterable data sets and subclasses of DataLoader stay as is."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return loader
    return SeededLoader(loader, seed)


class SeededLoader(DataLoader):
    """A data loader in which the random numbers of a sample follow from seed, process and place in the run.

    It loads through a second DataLoader, of a :class:`SeededDataset` and of indices with their places. So workers draw
    what the main process draws, and a resumed run what the whole one draws. Data set, sampler and options are those of
    the given loader. A sampler that draws from the global random states draws the same in all processes.

    Args:
        loader: A data loader of a data set with indices.
        seed: Of the run.
    """

    def __init__(self, loader: DataLoader, seed: int) -> None:
        order: dict
        if loader.batch_sampler is not None and loader.batch_size is None:
            order = dict(batch_sampler=loader.batch_sampler)
        else:
            order = dict(sampler=loader.sampler, batch_size=loader.batch_size, drop_last=loader.drop_last)
        super().__init__(loader.dataset, **order, **{name: getattr(loader, name) for name in _OPTIONS})
        is_batched = self.batch_sampler is not None
        self.places = _Places(self.batch_sampler if is_batched else self.sampler, is_batched, seed)

    def __iter__(self) -> Any:
        loader: Any = self._iterator  # kept for its persistent workers; mmpretrain's SwitchRecipeHook sets it to None
        if loader is None:
            places = self.places
            order: dict = dict(batch_sampler=places) if places.is_batched else dict(sampler=places, batch_size=None)
            options = {name: getattr(self, name) for name in _OPTIONS}  # hooks may have changed them
            loader = DataLoader(SeededDataset(self.dataset, places.seed), **order, **options)
            if self.persistent_workers:
                self._iterator = loader
        return iter(loader)

    def start_pass(self, number: int) -> None:
        """Set the number of the next pass over the data, which else is one more than the last."""
        self.places.next_pass = number

    def set_epoch(self, epoch: int) -> None:
        """Tell the sampler the epoch, if it has a ``set_epoch``."""
        for sampler in (self.sampler, getattr(self.batch_sampler, 'sampler', None)):
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
                return


class EndlessBatches:
    """Batches of a :class:`SeededLoader`, pass after pass: the ``dataloader_iterator`` of an iteration-based loop.

    mmengine's own skips batches by ``sampler.skip``, which leaves the places of the samples behind, or loads them.
    """

    def __init__(self, loader: SeededLoader) -> None:
        self._loader, self._epoch = loader, 0
        self._batches: Optional[Iterator] = None  # of the pass under way

    def __iter__(self) -> 'EndlessBatches':
        return self

    def __next__(self) -> Any:
        return self._next(self._loader)

    def skip_iter(self, number: int) -> None:
        """Skip the batches of this many iterations without loading them; before the first batch is taken."""
        for _ in range(number):
            self._next(self._loader.places)
        self._loader.places.under_way, self._batches = self._batches, None

    def _next(self, source: Iterable) -> Any:
        if self._batches is None:
            self._batches = iter(source)
        batch = next(self._batches, _END)
        if batch is _END:
            self._epoch += 1
            self._loader.set_epoch(self._epoch)
            self._batches = iter(source)
            batch = next(self._batches)
        return batch


class PlacedIndex(NamedTuple):
    """An index of a data set, with its place: the pass over the data, and the number in the pass."""

    index: Any
    place: Tuple[int, int]


class SeededDataset(Dataset):
    """A data set by :class:`PlacedIndex`: each sample is drawn after seeding by its place."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed, self.rank = dataset, seed, get_rank()

    def __getitem__(self, placed: PlacedIndex) -> Any:
        return self.__getitems__([placed])[0]

    def __getitems__(self, batch: List[PlacedIndex]) -> list:
        """Return the samples of a batch, as PyTorch's loaders ask for them from version 2.0 on."""
        with _states_kept():
            return [self._draw(placed) for placed in batch]

    def _draw(self, placed: PlacedIndex) -> Any:
        torch.default_generator.manual_seed(_seed(self.seed, _SAMPLE, self.rank, *placed.place))
        return self.dataset[placed.index]


class _Places:
    """The indices that a sampler gives, or its batches of them, each as a :class:`PlacedIndex`."""

    def __init__(self, sampler: Any, is_batched: bool, seed: int) -> None:
        self.sampler, self.is_batched, self.seed = sampler, is_batched, seed
        self.next_pass = 0
        self.under_way: Optional[Iterator] = None  # a pass to continue instead of a new one

    def __iter__(self) -> Iterator:
        # A generator, which starts with the first index: a loader with workers makes two iterators and drops one.
        if self.under_way is not None:
            under_way, self.under_way = self.under_way, None
            yield from under_way
            return
        this_pass, number = self.next_pass, 0
        drawn: Any = None
        self.next_pass += 1
        for step in count():
            with _states_kept():
                torch.default_generator.manual_seed(_seed(self.seed, _ORDER, this_pass, step))
                drawn = iter(self.sampler) if drawn is None else drawn
                batch: Any = next(drawn, _END)
            if batch is _END:
                return
            indices: List[Any] = list(batch) if self.is_batched else [batch]
            placed = [PlacedIndex(index, (this_pass, place)) for place, index in enumerate(indices, number)]
            number += len(indices)
            yield placed if self.is_batched else placed[0]


@contextmanager
def _states_kept() -> Iterator[None]:
    """Restore the global random states in the end; not in a worker, where nothing but samples draws from them."""
    if get_worker_info() is not None:
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _seed(*entropy: int) -> int:
    """Seed Python and numpy, and return the seed for PyTorch, of 63 bits."""
    # As an array, of numbers below 2**32: numpy takes twice the time for a tuple.
    words = np.random.SeedSequence(np.array(entropy, np.uint32)).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)
    return int(words[0]) << 31 | int(words[1]) >> 1
