"""Random numbers that depend on where a run is, not on how it got there, so that a resumed run draws the same."""

import random
from contextlib import contextmanager
from functools import lru_cache
from numbers import Integral
from typing import Any, Callable, Iterator

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, IterableDataset

_ITERATION, _SAMPLE = 0, 1  # two streams of random numbers that have nothing to do with each other


def seed_iteration(seed: int, iteration: int) -> None:
    """Seed Python, numpy and PyTorch for one training iteration of this process."""
    words = _words(seed, _ITERATION, get_rank(), iteration)
    _seed(words)
    torch.manual_seed(_join(words))


def seed_samples(loader: DataLoader, seed: int) -> None:
    """Make what a data set draws for a sample depend on the seed, the process and the sample's place in the run.

    Workers draw as the main process does, and a resumed run as the uninterrupted one. Sampler and data set keep their
    own types, as subclasses, for all who look for them. Left alone are iterable data sets, lists and others of built-in
    types, batch samplers without a ``sampler``, and indices that are not integers.
    """
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    if sampler is None or hasattr(sampler, '_stream') or isinstance(loader.dataset, IterableDataset):
        return
    try:
        loader.dataset.__class__ = _seeding(type(loader.dataset))
    except TypeError:  # a built-in type
        return
    sampler.__class__ = _counting(type(sampler))
    sampler._stream = (seed, _SAMPLE, get_rank())


class _Draw(int):
    """An index that knows the random numbers it comes with."""

    words: Any


@lru_cache(maxsize=None)
def _counting(kind: type) -> type:
    """Return a subclass of a sampler whose indices carry their place: the epoch, and the number within it."""

    class CountingSampler(kind):
        _pass, _skipped = 0, 0

        def __iter__(self) -> Iterator[int]:
            for number, index in enumerate(super().__iter__(), self._skipped):
                if isinstance(index, Integral):
                    index = _Draw(index)
                    index.words = (*self._stream, self._pass, number)
                yield index

        if hasattr(kind, 'set_epoch'):

            def set_epoch(self, epoch: int) -> None:
                super().set_epoch(epoch)
                self._pass, self._skipped = epoch, 0

        if hasattr(kind, 'skip'):

            def skip(self, num_samples: int) -> None:
                super().skip(num_samples)
                self._skipped = num_samples

    return _called_like(kind, CountingSampler)


@lru_cache(maxsize=None)
def _seeding(kind: type) -> type:
    """Return a subclass of a data set in which what a sample draws follows its index, and touches nothing else."""

    class SeededDataset(kind):
        def __getitem__(self, index: int) -> Any:
            if not isinstance(index, _Draw):
                return super().__getitem__(index)
            with _seeded(_words(*index.words)):
                return super().__getitem__(int(index))

        if hasattr(kind, '__getitems__'):
            __getitems__ = None  # a data loader then takes one by one

        def __reduce_ex__(self, protocol: int) -> tuple:
            # Workers that are spawned, not forked, get the data set pickled, which needs a class that can be imported.
            seeding = type(self)
            self.__class__ = kind
            try:
                rebuild, arguments, *state = self.__reduce_ex__(protocol)
            finally:
                self.__class__ = seeding
            return (_rebuild, (rebuild, arguments), *state)

    return _called_like(kind, SeededDataset)


def _called_like(kind: type, subclass: type) -> type:
    subclass.__name__, subclass.__qualname__, subclass.__doc__ = kind.__name__, kind.__qualname__, kind.__doc__
    return subclass


def _rebuild(rebuild: Callable, arguments: tuple) -> Any:
    dataset = rebuild(*arguments)
    dataset.__class__ = _seeding(type(dataset))
    return dataset


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
