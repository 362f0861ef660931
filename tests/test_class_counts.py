import numpy as np
import pytest
import torch

from sar_mm.class_counts import TakesClassCounts


class Taker(TakesClassCounts):
    def __init__(self, class_counts=None):
        self.set_own_counts(class_counts)


@pytest.mark.parametrize('counts', [(500, 7, 0), [500.0, 7.0, 0.0], np.array([500, 7, 0.0]), torch.tensor([500, 7, 0])])
def test_takes_class_counts__of_any_type(counts):
    assert Taker(counts).class_counts == [500, 7, 0]
    found = Taker(counts).counts_for(torch.zeros(2, 3, 4, 4))
    assert found.tolist() == [500, 7, 1] and found.dtype == torch.float32


def test_takes_class_counts__those_of_the_config_stay():
    taker, own = Taker(), Taker([3, 4])
    for counts in ([1, 2], [5, 6]):  # a second run may be on other data
        taker.set_class_counts(counts)
        own.set_class_counts(counts)
    assert taker.checked_class_counts() == [5, 6] and own.checked_class_counts() == [3, 4]


@pytest.mark.parametrize(
    'counts', [[], [0, 0], [-1, 3], [[1, 2]], [float('nan'), 1], [0.9, 0.1], [0, 1, 0.5], 'counts.json']
)
def test_takes_class_counts__wrong_counts(counts):
    for refused in (lambda: Taker(counts), lambda: Taker().set_class_counts(counts)):
        with pytest.raises(ValueError, match='`class_counts` to be one count per class.*multiply shares'):
            refused()


def test_takes_class_counts__missing_or_of_other_classes():
    with pytest.raises(ValueError, match=r"Taker has no class counts: add dict\(type='ClassCountsHook'\)"):
        Taker().counts_for(torch.zeros(2, 3))
    message = r'`class_counts` to be one count for each of the 3 classes, but got \[1, 2\]'
    taker = Taker([1, 2])
    with pytest.raises(ValueError, match=message):
        taker.counts_for(torch.zeros(2, 3))
    taker.dataset_meta = dict(classes=('a', 'b', 'c'))  # as metrics have it
    with pytest.raises(ValueError, match=message):
        taker.checked_class_counts()
    taker = Taker()
    taker.dataset_meta = dict(classes=('a', 'b', 'c'))
    with pytest.raises(ValueError, match=message):
        taker.set_class_counts([1, 2])
