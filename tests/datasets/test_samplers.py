from itertools import islice

import numpy as np
import pytest
import torch
from in_memory import shuffled
from torch.utils.data import DataLoader

from sar_mm.datasets import ClassPowerSampler, LabeledUnlabeledSampler
from sar_mm.registry import DATA_SAMPLERS

SIZES = [300, 60, 0, 12]


class Images:
    def __init__(self, sizes=SIZES):
        self.labels = shuffled(sizes)

    def __len__(self):
        return len(self.labels)

    def get_cat_ids(self, index):
        return [self.labels[index]]


@pytest.fixture
def ranks(monkeypatch):
    """Samplers of all processes of a group."""

    def make(world_size, kind, *args, **options):
        samplers = []
        for rank in range(world_size):
            monkeypatch.setattr('sar_mm.datasets.samplers.get_dist_info', lambda: (rank, world_size))  # noqa: B023
            samplers.append(kind(*args, **options))
        return samplers

    return make


def draw(sampler, epochs):
    drawn = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        drawn += list(sampler)
    return drawn


@pytest.mark.parametrize('power', [-0.5, 0.0, 0.5, 1.0, 2.0])
def test_class_power_sampler__shares_of_the_classes(power):
    data = Images()
    drawn = draw(ClassPowerSampler(data, power=power, seed=0), epochs=100)
    found = np.bincount([data.labels[index] for index in drawn], minlength=4) / len(drawn)
    expected = np.array([size**power if size else 0.0 for size in SIZES])
    expected /= expected.sum()
    deviation = np.sqrt(expected * (1 - expected) / len(drawn))
    assert (np.abs(found - expected) <= 4 * deviation).all()
    assert found[2] == 0


def test_class_power_sampler__images_of_a_class_are_uniform():
    data = Images([40, 8])
    drawn = draw(ClassPowerSampler(data, seed=1), epochs=1000)
    counts = np.bincount(drawn, minlength=48)
    for label, size in enumerate([40, 8]):
        of_class = counts[np.array(data.labels) == label]
        expected = len(drawn) / 2 / size
        assert len(of_class) == size
        assert (np.abs(of_class - expected) < 5 * np.sqrt(expected)).all()


def test_class_power_sampler__seed_and_epoch_decide():
    data = Images()
    first, second = ClassPowerSampler(data, seed=3), ClassPowerSampler(data, seed=3)
    state = torch.get_rng_state()
    assert list(first) == list(first) == list(second)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(list(first)) == len(first) == 372
    before = list(first)
    first.set_epoch(1)
    assert list(first) != before
    assert list(ClassPowerSampler(data, seed=4)) == list(first)  # seed + epoch
    assert isinstance(ClassPowerSampler(data).seed, int)


@pytest.mark.parametrize(('world_size', 'sizes'), [(2, [30, 6]), (2, [30, 7]), (3, [30, 7]), (5, [2, 1])])
def test_class_power_sampler__processes_share_one_draw(ranks, world_size, sizes):
    data = Images(sizes)
    whole = list(ranks(1, ClassPowerSampler, data, seed=5, power=0.5)[0])
    samplers = ranks(world_size, ClassPowerSampler, data, seed=5, power=0.5)
    parts = [list(sampler) for sampler in samplers]
    assert len({len(part) for part in parts}) == 1
    woven = [index for step in zip(*parts) for index in step]
    assert woven[: len(whole)] == whole
    assert woven[len(whole) :] == whole[: len(woven) - len(whole)]
    assert all(len(part) == len(sampler) for part, sampler in zip(parts, samplers))


def test_class_power_sampler__power_may_change_between_epochs():
    data = Images()
    sampler = ClassPowerSampler(data, power=1.0, seed=0)
    as_they_are = list(sampler)
    sampler.power = 0.0
    assert list(sampler) == list(ClassPowerSampler(data, power=0.0, seed=0)) != as_they_are


def test_class_power_sampler__builds_from_a_config():
    sampler = DATA_SAMPLERS.build(
        dict(type='ClassPowerSampler', power=0.5), default_args=dict(dataset=Images(), seed=None)
    )
    assert sampler.power == 0.5 and len(sampler) == 372


@pytest.mark.parametrize('power', ['sqrt', float('nan'), None])
def test_class_power_sampler__bad_power(power):
    with pytest.raises(ValueError, match='Expected argument `power` to be a finite number'):
        ClassPowerSampler(Images(), power=power)


def test_class_power_sampler__several_labels_per_image():
    data = Images()
    data.get_cat_ids = lambda index: [0, 1] if index == 7 else [0]
    with pytest.raises(ValueError, match=r'one label per image \(image 7\)'):
        ClassPowerSampler(data)


def test_class_power_sampler__empty_data_set():
    with pytest.raises(ValueError, match='not empty'):
        ClassPowerSampler(Images([]))


class Mixed:
    """As many labeled and unlabeled images as one wants; an image is its own index."""

    def __init__(self, num_labeled, num_unlabeled):
        self.num_labeled, self.num_unlabeled = num_labeled, num_unlabeled

    def __len__(self):
        return self.num_labeled + self.num_unlabeled

    def __getitem__(self, index):
        return index


def batches(sampler, number):
    """The next batches, each split into labeled and unlabeled images, the latter counted from 0."""
    labeled, size = sampler.labeled, sampler.labeled + sampler.unlabeled
    drawn = list(islice(iter(sampler), number * size))
    found = [drawn[first : first + size] for first in range(0, number * size, size)]
    split = sampler.dataset.num_labeled
    assert all(max(batch[:labeled]) < split <= min(batch[labeled:]) for batch in found)
    return [batch[:labeled] for batch in found], [[i - split for i in batch[labeled:]] for batch in found]


@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize(
    ('world_size', 'sizes', 'ratio'), [(1, (5, 24), (2, 3)), (2, (7, 24), (1, 3)), (3, (2, 19), (4, 2))]
)
def test_labeled_unlabeled__processes_weave_permutations_in_the_set_ratio(ranks, world_size, sizes, ratio, shuffle):
    samplers = ranks(world_size, LabeledUnlabeledSampler, Mixed(*sizes), *ratio, seed=2, shuffle=shuffle)
    parts = [batches(sampler, 60) for sampler in samplers]  # checks the ratio
    for kind, size in enumerate(sizes):
        streams = [[index for batch in part[kind] for index in batch] for part in parts]
        woven = [index for step in zip(*streams) for index in step]
        passes = [woven[first : first + size] for first in range(0, len(woven) - size + 1, size)]
        assert len(passes) > 5 and all(sorted(order) == list(range(size)) for order in passes)
        assert (passes[0] == passes[1]) != shuffle


def test_labeled_unlabeled__processes_see_disjoint_images(ranks):
    first, second = (batches(sampler, 6) for sampler in ranks(2, LabeledUnlabeledSampler, Mixed(12, 36), 1, 3, seed=0))
    for kind, size in ((0, 12), (1, 36)):
        seen = [{index for batch in part[kind] for index in batch} for part in (first, second)]
        assert not seen[0] & seen[1] and seen[0] | seen[1] == set(range(size))


def test_labeled_unlabeled__fewer_images_than_processes(ranks):
    parts = [batches(each, 8)[0] for each in ranks(5, LabeledUnlabeledSampler, Mixed(2, 10), 1, 1, seed=0)]
    woven = [index for step in zip(*parts) for (index,) in step]
    assert all(sorted(woven[first : first + 2]) == [0, 1] for first in range(0, 40, 2))


def test_labeled_unlabeled__seed_decides_and_the_global_state_is_left_alone():
    data = Mixed(20, 50)
    state = torch.get_rng_state()
    first, same, other = (batches(LabeledUnlabeledSampler(data, 2, 5, seed=seed), 10) for seed in (3, 3, 4))
    assert first == same and first[0] != other[0] and first[1] != other[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(LabeledUnlabeledSampler(data, 2, 5).seed, int)


@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize(('world_size', 'skipped'), [(1, 0), (2, 1), (3, 2), (1, 3), (2, 5), (3, 7), (1, 40), (2, 333)])
def test_labeled_unlabeled__skipping_is_advancing(ranks, world_size, skipped, shuffle):
    options = (world_size, LabeledUnlabeledSampler, Mixed(4, 23), 2, 3, shuffle, 1)
    for advanced, skipping in zip(ranks(*options), ranks(*options)):
        expected = list(islice(iter(advanced), skipped + 100))[skipped:]
        list(islice(iter(skipping), 11))  # skip() counts from the start
        skipping.skip(skipped)
        assert list(islice(iter(skipping), 100)) == expected


def test_labeled_unlabeled__resumes_in_a_dataloader():
    from mmengine.runner.loops import _InfiniteDataloaderIterator

    def loader():
        data = Mixed(6, 14)
        return DataLoader(data, batch_size=5, sampler=LabeledUnlabeledSampler(data, 2, 3, seed=0), collate_fn=list)

    whole = [batch for _, batch in zip(range(20), loader())]
    resumed = _InfiniteDataloaderIterator(loader())
    if hasattr(resumed, 'skip_iter'):
        resumed.skip_iter(7)
    else:  # as mmengine's own loop did before it could skip
        for _ in range(7):
            next(resumed)
    assert [next(resumed) for _ in range(13)] == whole[7:]


def test_labeled_unlabeled__builds_from_a_config():
    config = dict(type='LabeledUnlabeledSampler', labeled=1, unlabeled=7)
    sampler = DATA_SAMPLERS.build(config, default_args=dict(dataset=Mixed(4, 30), seed=None))
    sampler.set_epoch(3)
    assert (sampler.labeled, sampler.unlabeled, len(sampler)) == (1, 7, 34)


@pytest.mark.parametrize(('name', 'number'), [('labeled', 0), ('unlabeled', -1), ('labeled', 1.5), ('unlabeled', True)])
def test_labeled_unlabeled__bad_numbers(name, number):
    with pytest.raises(ValueError, match=f'Expected argument `{name}` to be an integer of at least 1'):
        LabeledUnlabeledSampler(Mixed(4, 30), **{'labeled': 1, 'unlabeled': 1, name: number})


def test_labeled_unlabeled__bad_skip():
    with pytest.raises(ValueError, match='Expected argument `num_samples` to be an integer of at least 0'):
        LabeledUnlabeledSampler(Mixed(4, 30), 1, 1).skip(-1)


@pytest.mark.parametrize('data', [Images(), Mixed(0, 3), Mixed(3, 0)])
def test_labeled_unlabeled__other_data_sets(data):
    with pytest.raises(ValueError, match='Expected argument `dataset` to be a SemiSupervisedDataset.*but got '):
        LabeledUnlabeledSampler(data, 1, 1)
