import pytest
import torch

from sar_mm.analysis import ClassReservoir


def test_class_reservoir__keeps_at_most_size_of_each_class():
    reservoir = ClassReservoir(4, size=5)
    target = torch.tensor([0] * 40 + [1] * 3 + [3] * 7 + [255] * 10 + [-1] * 2)
    feature = torch.arange(len(target))[:, None].float()
    for start in range(0, len(target), 6):
        reservoir.update(feature[start : start + 6], target[start : start + 6])
    assert reservoir.labels.tolist() == [0] * 5 + [1] * 3 + [3] * 5
    kept = reservoir.features[:, 0].long()
    assert torch.equal(target[kept], reservoir.labels)
    assert len(set(kept.tolist())) == len(kept)


def test_class_reservoir__every_feature_has_the_same_chance():
    hits = torch.zeros(30)
    for seed in range(1000):
        reservoir = ClassReservoir(1, size=6, seed=seed)
        for rows in torch.arange(30.0)[:, None].split(7):  # the batches do not divide the stream evenly
            reservoir.update(rows, torch.zeros(len(rows)))
        hits[reservoir.features[:, 0].long()] += 1
    # Each is kept with probability 0.2: 200 times, with a standard deviation of 13.
    assert (hits - 200).abs().max() < 60


def test_class_reservoir__same_seed_keeps_the_same_places_of_another_feature():
    target = torch.arange(3).repeat(50)
    kept = []
    for scale in (1, 10):
        reservoir = ClassReservoir(3, size=4, seed=7)
        reservoir.update(scale * torch.arange(150.0)[:, None], target)
        kept.append(reservoir.features / scale)
    assert torch.equal(*kept)


def test_class_reservoir__pixels():
    feature = torch.arange(24.0).reshape(2, 3, 2, 2)
    reservoir = ClassReservoir(2, size=10)
    reservoir.update(feature, torch.tensor([[[0, 1], [255, 1]], [[1, 1], [0, 255]]]))
    own = {0: [[0, 4, 8], [14, 18, 22]], 1: [[1, 5, 9], [3, 7, 11], [12, 16, 20], [13, 17, 21]]}
    for k, rows in own.items():
        assert sorted(reservoir.features[reservoir.labels == k].tolist()) == rows


def test_class_reservoir__wrong_size():
    with pytest.raises(ValueError, match='`size` to be an integer of at least 1, but got 0'):
        ClassReservoir(3, size=0)
