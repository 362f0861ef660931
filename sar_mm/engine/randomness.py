"""Random numbers that depend on where a run is, not on how it got there, so that a resumed run draws the same."""

import random
from contextlib import contextmanager
from inspect import signature
from itertools import count
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, Dataset, IterableDataset

_ITERATION, _SAMPLE, _ORDER = 0, 1, 2  # streams of random numbers that have nothing to do with each other
_OPTIONS = tuple(
    name
    for name in signature(DataLoader).parameters
    if name not in ('dataset', 'batch_size', 'shuffle', 'sampler', 'batch_sampler', 'drop_last')
)
_END = object()


def seed_iteration(seed: int, iteration: int) -> None:
    """Seed Python, numpy and PyTorch for one training iteration of this process."""
    words = _words(seed, _ITERATION, get_rank(), iteration)
    _seed(words)
    torch.manual_seed(_join(words))


def seed_samples(loader: DataLoader, seed: int) -> DataLoader:
    """Return a :class:`SeededLoader` of a data loader; iterable data sets and other classes of loaders stay as is."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return loader
    return SeededLoader(loader, seed)


class SeededLoader(DataLoader):
    """A data loader in which what a sample draws depends on the seed, the process and the sample's place in the run.

    It loads through a second loader: there, every index comes with its place, which is the pass over the data and the
    number in this pass, and each sample is drawn after seeding by it. So workers draw as the main process does, and a
    resumed run as the uninterrupted one. Data set, sampler and options are those of the loader it is made of. What
    samplers draw from the global random states depends on the place, too, and is alike in all processes.

    Args:
        loader: A data loader of a data set with indices.
        seed: Of the run.
    """

    def __init__(self, loader: DataLoader, seed: int) -> None:
        options = {name: getattr(loader, name) for name in _OPTIONS}
        if loader.batch_sampler is None:
            self._places = _Places(loader.sampler, False, seed)
            batches = dict(sampler=self._places, batch_size=None)
        else:
            self._places = _Places(loader.batch_sampler, True, seed)
            batches = dict(batch_sampler=self._places)
        self._loading = DataLoader(_SeededSamples(loader.dataset, seed), **batches, **options)
        if loader.batch_sampler is None or loader.batch_size is not None:
            batches = dict(sampler=loader.sampler, batch_size=loader.batch_size, drop_last=loader.drop_last)
        else:
            batches = dict(batch_sampler=loader.batch_sampler)
        super().__init__(loader.dataset, **batches, **options)

    def __iter__(self) -> Iterator:
        for name in _OPTIONS:  # hooks may have set others since
            if getattr(self._loading, name) is not getattr(self, name):
                setattr(self._loading, name, getattr(self, name))
        return iter(self._loading)

    @property
    def _iterator(self) -> Any:  # mmpretrain's SwitchRecipeHook sets it to None, to start persistent workers anew
        return self._loading._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._loading._iterator = iterator

    def start_pass(self, number: int) -> None:
        """Say which pass over the data the next one is, where that is not one more than the last."""
        self._places.next_pass = number

    def set_epoch(self, epoch: int) -> None:
        """Tell the sampler the epoch, if it has a ``set_epoch``."""
        for sampler in (self.sampler, getattr(self.batch_sampler, 'sampler', None)):
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
                return

    def skip(self, number: int) -> int:
        """Pass over batches without loading them, and return how many passes over the data have ended meanwhile."""
        ended, batches = 0, iter(self._places)
        for _ in range(number):
            if next(batches, _END) is _END:
                ended += 1
                self.set_epoch(ended)
                batches = iter(self._places)
                next(batches)
        self._places.under_way = batches
        return ended


class EndlessBatches:
    """Batches without end for an iteration-based loop, as mmengine's own ``loop.dataloader_iterator``.

    mmengine's asks a sampler with a ``skip`` to go on elsewhere, of which a :class:`SeededLoader` would not know, and
    with other samplers its workers load all that is passed over. This one passes over indices alone.
    """

    def __init__(self, loader: SeededLoader) -> None:
        self._loader = loader
        self._batches: Optional[Iterator] = None
        self._epoch = 0

    def __iter__(self) -> 'EndlessBatches':
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = iter(self._loader)
        batch = next(self._batches, _END)
        if batch is _END:
            self._epoch += 1
            self._loader.set_epoch(self._epoch)
            self._batches = iter(self._loader)
            batch = next(self._batches)
        return batch

    def skip_iter(self, number: int) -> None:
        """Pass over the batches of so many iterations; before the first one is taken."""
        self._epoch = self._loader.skip(number)


class _Draw(NamedTuple):
    """An index with its place: the pass, and the number in it."""

    index: Any
    place: Tuple[int, int]


class _Places:
    """The indices, or batches of them, that a sampler gives, with their places."""

    def __init__(self, sampler: Any, is_batched: bool, seed: int) -> None:
        self.sampler, self.is_batched, self.seed = sampler, is_batched, seed
        self.next_pass = 0
        self.under_way: Optional[Iterator] = None  # a pass that goes on instead of a new one

    def __iter__(self) -> Iterator:
        # All of it once the first index is asked for: a loader with workers makes two iterators and drops one.
        if self.under_way is not None:
            under_way, self.under_way = self.under_way, None
            yield from under_way
            return
        this_pass, number, drawn = self.next_pass, 0, None
        self.next_pass += 1
        for step in count():
            with _seeded(_words(self.seed, _ORDER, this_pass, step)):
                drawn = iter(self.sampler) if drawn is None else drawn
                batch = next(drawn, _END)
            if batch is _END:
                return
            draws: List[_Draw] = []
            for index in batch if self.is_batched else [batch]:
                draws.append(_Draw(index, (this_pass, number)))
                number += 1
            yield draws if self.is_batched else draws[0]

    def __len__(self) -> int:
        return len(self.sampler)


class _SeededSamples(Dataset):
    """A data set in which what a sample draws follows its place, and touches nothing else."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed, self.rank = dataset, seed, get_rank()

    def __getitem__(self, draw: _Draw) -> Any:
        with _seeded(_words(self.seed, _SAMPLE, self.rank, *draw.place)):
            return self.dataset[draw.index]

    def __len__(self) -> int:
        return len(self.dataset)


@contextmanager
def _seeded(words: np.ndarray) -> Iterator[None]:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed(words)
    torch.default_generator.manual_seed(_join(words))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _words(*entropy: int) -> np.ndarray:
    return np.random.SeedSequence(entropy).generate_state(4)


def _seed(words: np.ndarray) -> None:
    random.seed(words.tobytes())
    np.random.seed(words)


def _join(words: np.ndarray) -> int:
    return int(words[0]) << 31 | int(words[1]) >> 1  # 63 bits
