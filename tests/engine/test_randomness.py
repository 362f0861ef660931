import copy
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler, pseudo_collate
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, Subset

from sar_mm.engine import randomness
from sar_mm.engine.randomness import seed_iteration, seed_samples


class Draws(Dataset):
    """Every sample is its index and three random numbers, one of each source."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        assert type(index) is int
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def make_loader(seed=3, sampler=InfiniteSampler, workers=0, batch_sampler=False, **options):
    dataset = Draws()
    sampler = sampler(dataset, shuffle=True, seed=seed)
    options = dict(num_workers=workers, collate_fn=pseudo_collate, **options)
    if batch_sampler:
        loader = DataLoader(dataset, batch_sampler=BatchSampler(sampler, 4, drop_last=False), **options)
    else:
        loader = DataLoader(dataset, batch_size=4, sampler=sampler, **options)
    seed_samples(loader, seed)
    return loader


def batches(loader, number):
    iterator = iter(loader)
    return [list(zip(*next(iterator))) for _ in range(number)]


def test_seed_iteration__each_has_its_own_numbers():
    def draw(seed, iteration):
        seed_iteration(seed, iteration)
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert draw(1, 5) == draw(1, 5)
    drawn = [number for seed in (1, 2) for iteration in range(4) for number in draw(seed, iteration)]
    assert len(set(drawn)) == len(drawn)


def test_seed_iteration__each_process_has_its_own_numbers(monkeypatch):
    drawn = set()
    for rank in range(3):
        monkeypatch.setattr(randomness, 'get_rank', lambda rank=rank: rank)
        seed_iteration(1, 5)
        drawn.add((random.random(), np.random.rand(), torch.rand(()).item()))
    assert len(drawn) == 3


@pytest.mark.parametrize('workers', [1, 3])
@pytest.mark.parametrize('batch_sampler', [False, True])
def test_seed_samples__workers_draw_as_the_main_process(workers, batch_sampler):
    expected = batches(make_loader(), 7)
    assert batches(make_loader(workers=workers, batch_sampler=batch_sampler), 7) == expected
    numbers = [number for batch in expected for sample in batch for number in sample[1:]]
    assert len(set(numbers)) == len(numbers)


def test_seed_samples__samples_draw_from_numbers_of_their_own():
    """What the model has drawn before, as dropout does, does not matter, and it goes on as if no sample had drawn."""
    expected = batches(make_loader(), 2)[1]
    iterator = iter(make_loader())  # draws itself, which is PyTorch's way
    next(iterator)
    seed_iteration(0, 0)
    untouched = random.random(), np.random.rand(), torch.rand(()).item()
    seed_iteration(0, 0)
    assert list(zip(*next(iterator))) == expected
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == untouched


@pytest.mark.skipif(not hasattr(InfiniteSampler, 'skip'), reason='this mmengine goes through the batches instead')
def test_seed_samples__skipping_is_going_through():
    whole = batches(make_loader(), 9)
    loader = make_loader(workers=2)
    loader.sampler.skip(5 * 4)
    assert batches(loader, 4) == whole[5:]


def test_seed_samples__an_epoch_does_not_depend_on_the_ones_before():
    def epoch(loader, number):
        loader.sampler.set_epoch(number)
        return batches(loader, 3)

    loader = make_loader(sampler=DefaultSampler, workers=2, persistent_workers=True)
    epochs = [epoch(loader, number) for number in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epoch(make_loader(sampler=DefaultSampler), 2) == epochs[2]


def test_seed_samples__other_seeds_and_processes_draw_other_numbers(monkeypatch):
    def draws():
        return {sample[0]: sample[1:] for sample in batches(make_loader(), 3)[0]}

    first = draws()
    monkeypatch.setattr(randomness, 'get_rank', lambda: 1)
    assert all(first[index] != numbers for index, numbers in draws().items() if index in first)


def test_seed_samples__types_stay_and_the_data_set_can_be_pickled():
    loader = make_loader()
    assert isinstance(loader.sampler, InfiniteSampler) and type(loader.sampler).__name__ == 'InfiniteSampler'
    assert isinstance(loader.dataset, Draws) and type(loader.dataset).__name__ == 'Draws'
    dataset = pickle.loads(pickle.dumps(loader.dataset))
    indices = list(next(iter(loader.batch_sampler)))
    assert [dataset[index] for index in indices] == [loader.dataset[index] for index in indices]
    assert len(dataset) == 12 and type(dataset) is type(loader.dataset)


def test_seed_samples__iterable_data_sets_are_left_alone():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(range(4))

    loader = DataLoader(Endless(), batch_size=2)
    seed_samples(loader, 1)
    assert type(loader.dataset) is Endless and len(list(loader)) == 2


class OpenFile(Draws):
    """What many do whose files cannot be pickled."""

    def __init__(self):
        self.file = open(__file__)  # noqa: SIM115

    def __getstate__(self):
        return dict(self.__dict__, file=None)

    def __setstate__(self, state):
        self.__init__()


@pytest.mark.parametrize('copy', [copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))])
def test_seed_samples__a_data_set_says_itself_how_it_is_pickled(copy):
    dataset = OpenFile()
    loader = DataLoader(dataset, batch_size=4, sampler=InfiniteSampler(dataset))
    seed_samples(loader, 1)
    other = copy(dataset)
    assert not other.file.closed and type(other) is type(dataset) is not OpenFile
    index = next(iter(loader.sampler))
    assert other[index] == dataset[index]


def test_seed_samples__parts_of_data_sets():
    """PyTorch asks a Subset for the samples of a batch at once."""

    def draw():
        dataset = Subset(Draws(), range(4))
        loader = DataLoader(dataset, batch_size=2, sampler=SequentialSampler(dataset), collate_fn=pseudo_collate)
        seed_samples(loader, 1)
        return batches(loader, 2)

    assert draw() == draw()


def test_seed_samples__built_in_types_are_left_alone():
    loader = DataLoader([3, 4], batch_size=2)
    seed_samples(loader, 1)
    assert next(iter(loader)).tolist() == [3, 4] and type(loader.sampler) is SequentialSampler


def test_seed_samples__other_indices_are_left_alone():
    class Sizes(Dataset):
        def __getitem__(self, index):
            return index

    loader = DataLoader(Sizes(), batch_size=1, sampler=[(0, 32), (1, 64)], collate_fn=pseudo_collate)
    loader.batch_sampler.sampler = type('Sampler', (), dict(__iter__=lambda self: iter([(0, 32), (1, 64)])))()
    seed_samples(loader, 1)
    assert list(loader) == [[(0,), (32,)], [(1,), (64,)]] or [tuple(*batch) for batch in loader] == [(0, 32), (1, 64)]
