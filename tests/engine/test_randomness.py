import contextlib
import functools
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler, pseudo_collate
from torch.utils import data
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler, Subset

from sar_mm.datasets import ClassPowerSampler, LabeledUnlabeledSampler
from sar_mm.engine import randomness
from sar_mm.engine.randomness import EndlessBatches, SeededDataset, seed_iteration, seed_samples


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
    return seed_samples(loader, seed)


def batches(loader, number):
    iterator = iter(loader)
    return [list(zip(*next(iterator))) for _ in range(number)]


def test_seed_iteration__each_has_its_own_numbers_in_each_process(monkeypatch):
    def draw(seed, iteration, rank=0):
        monkeypatch.setattr(randomness, 'get_rank', lambda: rank)
        seed_iteration(seed, iteration)
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert draw(1, 5) == draw(1, 5)
    drawn = [number for seed in (1, 2) for iteration in range(4) for number in draw(seed, iteration)]
    drawn += draw(1, 3, rank=1) + draw(1, 3, rank=2)
    assert len(set(drawn)) == len(drawn)


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


@pytest.mark.parametrize('sampler', [InfiniteSampler, DefaultSampler])
def test_endless_batches__skipping_is_going_through(sampler):
    """Also over the ends of passes: 12 images are three batches."""
    batches_of = EndlessBatches(make_loader(sampler=sampler))
    whole = [list(zip(*next(batches_of))) for _ in range(11)]
    for skipped in (0, 2, 3, 5, 7):
        loader = make_loader(sampler=sampler, workers=2 if skipped == 7 else 0)
        resumed = EndlessBatches(loader)
        resumed.skip_iter(skipped)
        assert [list(zip(*next(resumed))) for _ in range(11 - skipped)] == whole[skipped:]


def test_seed_samples__an_epoch_does_not_depend_on_the_ones_before():
    def epoch(loader, number):
        loader.set_epoch(number)
        loader.start_pass(number)
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


def test_seed_samples__data_set_sampler_and_options_are_those_of_the_loader():
    dataset = Draws()
    sampler = InfiniteSampler(dataset)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, drop_last=True, timeout=0, collate_fn=pseudo_collate)
    seeded = seed_samples(loader, 1)
    assert seeded.dataset is dataset and seeded.sampler is sampler and type(seeded.batch_sampler) is BatchSampler
    assert (seeded.batch_size, seeded.drop_last, seeded.collate_fn) == (4, True, pseudo_collate)
    assert len(seeded) == len(loader) and isinstance(seeded, DataLoader)
    batch_sampler = BatchSampler(sampler, 4, drop_last=False)
    seeded = seed_samples(DataLoader(dataset, batch_sampler=batch_sampler), 1)
    assert seeded.batch_sampler is batch_sampler and seeded.batch_size is None


def test_seed_samples__what_hooks_change_holds():
    """The augmentation and the collation, also with persistent workers that a hook starts anew."""
    loader = make_loader(workers=1, persistent_workers=True, sampler=DefaultSampler)
    first = batches(loader, 3)
    assert loader._iterator is not None
    loader.dataset.__class__ = type('Fixed', (Draws,), dict(__getitem__=lambda self, index: (index, 0.0, 0.0, 0.0)))
    loader._iterator = None  # as mmpretrain's SwitchRecipeHook
    loader.collate_fn = functools.partial(pseudo_collate)
    assert all(sample[1:] == (0.0, 0.0, 0.0) for batch in batches(loader, 3) for sample in batch)
    assert first[0][0][1] != 0.0


def test_seed_samples__other_loaders_are_left_alone():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(range(4))

    class Own(DataLoader):
        pass

    for loader in (DataLoader(Endless(), batch_size=2), Own(Draws())):
        assert seed_samples(loader, 1) is loader


class OpenFile(Draws):
    """What many do whose files cannot be pickled."""

    def __init__(self):
        self.file = open(__file__)  # noqa: SIM115

    def __getstate__(self):
        return dict(self.__dict__, file=None)

    def __setstate__(self, state):
        self.__init__()


def test_seed_samples__a_data_set_says_itself_how_it_is_pickled():
    """Workers that are spawned, not forked, get it so."""
    loader = seed_samples(DataLoader(OpenFile(), batch_size=4), 1)
    loading = SeededDataset(loader.dataset, 1)
    copy = pickle.loads(pickle.dumps(loading))
    draws = next(iter(loader.places))
    assert not copy.dataset.file.closed and [copy[draw] for draw in draws] == [loading[draw] for draw in draws]


@pytest.mark.parametrize('dataset', [Subset(Draws(), range(4)), [3, 4, 5, 6]])
def test_seed_samples__parts_of_data_sets_and_lists(dataset):
    """PyTorch asks a Subset for the samples of a batch at once."""

    def draw():
        loader = DataLoader(dataset, batch_size=2, collate_fn=list)
        return list(seed_samples(loader, 1))

    assert draw() == draw() and len(draw()) == 2


def test_seed_samples__indices_that_are_no_integers_and_batches_without_a_sampler():
    class Sizes(Dataset):
        def __getitem__(self, index):
            return (*index, random.random())

    order = [[(0, 32), (1, 32)], [(2, 64)]]
    one, two = (list(seed_samples(DataLoader(Sizes(), batch_sampler=order, collate_fn=list), 1)) for _ in range(2))
    assert one == two and [[sample[:2] for sample in batch] for batch in one] == order
    assert len({sample[2] for batch in one for sample in batch}) == 3


def test_seed_samples__samples_that_are_not_batched():
    loader = DataLoader(Draws(), batch_size=None, sampler=[4, 2])
    one, two = list(seed_samples(loader, 1)), list(seed_samples(loader, 1))
    assert one == two and [sample[0] for sample in one] == [4, 2] and one[0][1] != one[1][1]


class Own(Sampler):
    """A user's, which has no ``set_epoch``, and draws from the global random states as it goes."""

    def __init__(self, dataset):
        self.size = len(dataset)

    def __iter__(self):
        for _ in range(self.size):
            yield random.randrange(self.size)

    def __len__(self):
        return self.size


class Halves(Draws):
    """With what the samplers of this package ask a data set for."""

    num_labeled, num_unlabeled = 5, 7
    metainfo = dict(classes=('a', 'b'))

    def get_gt_labels(self):
        return np.array([0] * 8 + [1] * 4)

    def get_cat_ids(self, index):
        return [int(index >= 8)]


SAMPLERS = dict(
    default=DefaultSampler,
    in_order=lambda dataset: DefaultSampler(dataset, shuffle=False),
    infinite=lambda dataset: InfiniteSampler(dataset, seed=3),
    power=lambda dataset: ClassPowerSampler(dataset, seed=3),
    semi=lambda dataset: LabeledUnlabeledSampler(dataset, labeled=1, unlabeled=3, seed=3),
    torch_random=data.RandomSampler,
    torch_replacing=lambda dataset: data.RandomSampler(dataset, replacement=True, num_samples=12),
    torch_in_order=data.SequentialSampler,
    torch_weighted=lambda dataset: data.WeightedRandomSampler([1.0] * 12, 12),
    torch_subset=lambda dataset: data.SubsetRandomSampler(range(12)),
    torch_distributed=lambda dataset: data.DistributedSampler(dataset, num_replicas=1, rank=0, seed=3),
    own=Own,
)
with contextlib.suppress(ImportError):
    from mmpretrain.datasets import samplers as of_mmpretrain

    SAMPLERS.update(
        repeat=lambda dataset: of_mmpretrain.RepeatAugSampler(dataset, num_repeats=3, seed=3),
        subsample=lambda dataset: of_mmpretrain.SequentialSampler('default', dataset=dataset, seed=3),
    )


def test_samplers__all_registered_ones_are_tested():
    registered = {module for name in ('mmengine', 'mmpretrain', 'sar_mm') for module in _samplers_of(name)}
    made = {type(make(Halves())) for make in SAMPLERS.values()}
    assert registered and registered <= made


def _samplers_of(package):
    from mmengine.registry import DATA_SAMPLERS

    registries = [DATA_SAMPLERS, *DATA_SAMPLERS.children.values()]
    modules = {module for registry in registries for module in registry.module_dict.values()}
    return {module for module in modules if module.__module__.startswith(package)}


@pytest.mark.parametrize('told', [True, False])
@pytest.mark.parametrize('name', SAMPLERS)
def test_samplers__every_pass_draws_other_numbers_and_a_resumed_one_the_same(name, told):
    """Whether the sampler is told the epoch, as DistSamplerSeedHook does, or not."""

    def make():
        torch.manual_seed(random.randrange(2**32))  # what was drawn before does not matter
        dataset = Halves()
        sampler = SAMPLERS[name](dataset)
        if name == 'default':
            sampler.seed = 3
        return seed_samples(DataLoader(dataset, batch_size=4, sampler=sampler, collate_fn=pseudo_collate), 3)

    def run_epoch(loader, epoch):
        if told:
            loader.set_epoch(epoch)
        loader.start_pass(epoch)
        return batches(loader, 3)

    random.seed(1)
    if name not in ('infinite', 'semi'):  # these have no epochs
        loader = make()
        passes = [run_epoch(loader, epoch) for epoch in range(3)]
        augmentation = [sample[1:] for each in passes for batch in each for sample in batch]
        assert len(set(augmentation)) == len(augmentation) == 36
        assert run_epoch(make(), 2) == passes[2]

    whole, resumed = EndlessBatches(make()), EndlessBatches(make())
    endless = [list(zip(*next(whole))) for _ in range(9)]
    resumed.skip_iter(5)
    assert [list(zip(*next(resumed))) for _ in range(4)] == endless[5:]
    augmentation = [sample[1:] for batch in endless for sample in batch]
    assert len(set(augmentation)) == len(augmentation) == 36
