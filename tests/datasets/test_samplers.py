import numpy as np
import pytest
import torch

from sar_mm.datasets import ClassPowerSampler
from sar_mm.registry import DATA_SAMPLERS

SIZES = [300, 60, 0, 12]


class Images:
    def __init__(self, sizes=SIZES):
        self.labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)).tolist()

    def __len__(self):
        return len(self.labels)

    def get_cat_ids(self, index):
        return [self.labels[index]]


@pytest.fixture
def ranks(monkeypatch):
    """Samplers of all processes of a group."""

    def make(world_size, data, **options):
        samplers = []
        for rank in range(world_size):
            monkeypatch.setattr('sar_mm.datasets.samplers.get_dist_info', lambda: (rank, world_size))  # noqa: B023
            samplers.append(ClassPowerSampler(data, **options))
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
    whole = list(ranks(1, data, seed=5, power=0.5)[0])
    parts = [list(sampler) for sampler in ranks(world_size, data, seed=5, power=0.5)]
    assert len({len(part) for part in parts}) == 1
    woven = [index for step in zip(*parts) for index in step]
    assert woven[: len(whole)] == whole
    assert woven[len(whole) :] == whole[: len(woven) - len(whole)]
    assert all(len(part) == len(sampler) for part, sampler in zip(parts, ranks(world_size, data, seed=5)))


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
