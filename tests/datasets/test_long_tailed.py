import numpy as np
import pytest
from in_memory import Images, shuffled

from sar_mm.datasets import LongTailedDataset, long_tailed_counts


def counts_of(labels, *arguments, **options):
    return LongTailedDataset(Images(labels), *arguments, **options).metainfo['class_counts']


@pytest.mark.parametrize(
    ('arguments', 'counts'),
    [
        ((3, 100, 100), [100, 10, 1]),
        ((3, 300, 3), [300, 173, 100]),
        ((10, 5000, 100), [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),  # CIFAR-10-LT
        ((10, 2000, 1), [2000] * 10),
        ((4, 50, 10, 'step'), [50, 50, 5, 5]),
        ((3, 50, 7, 'step'), [50, 7, 7]),
        ((2, 50, 10), [50, 5]),
    ],
)
def test_long_tailed_counts__by_hand(arguments, counts):
    assert long_tailed_counts(*arguments) == counts


def test_long_tailed_counts__last_count_is_exact():
    for num_classes in (3, 10, 100):
        for factor in (1, 3, 7, 10, 20, 50, 100, 256):
            counts = long_tailed_counts(num_classes, 10 * factor, factor)
            assert counts[0] == 10 * factor and counts[-1] == 10
            assert counts == sorted(counts, reverse=True)


def test_long_tailed__is_the_profile():
    labels = shuffled([60, 60, 60])
    view = LongTailedDataset(Images(labels), imbalance_factor=4, max_per_class=40)
    assert view.metainfo['class_counts'] == (40, 20, 10) and len(view) == 70
    assert np.bincount(np.array(labels)[view.indices]).tolist() == [40, 20, 10]
    assert LongTailedDataset(Images(labels), imbalance_factor=1).indices.tolist() == list(range(180))


@pytest.mark.parametrize('profile', ['exponential', 'step'])
@pytest.mark.parametrize('sizes', [[50, 50, 50], [80, 31, 12], [9, 12, 31], [50, 49, 50]])
def test_long_tailed__default_size_is_the_largest_that_fits(sizes, profile):
    profiles = [tuple(long_tailed_counts(3, largest, 5, profile)) for largest in range(1, 100)]
    fitting = [counts for counts in profiles if all(count <= size for count, size in zip(counts, sizes))]
    assert counts_of(shuffled(sizes), 5, profile) == fitting[-1]


def test_long_tailed__class_order_runs_from_most_to_least_frequent():
    assert counts_of(shuffled([40, 50, 60]), 4, max_per_class=40, class_order=[2, 0, 1]) == (20, 10, 40)


def test_long_tailed__a_class_does_not_depend_on_the_others():
    labels = np.array(shuffled([50, 50, 50]))
    # The images of class 1 stay where they are, the others change their labels.
    others = np.where(labels == 1, 1, 2 - labels)
    first, second = (LongTailedDataset(Images(x.tolist()), 4, max_per_class=40).indices for x in (labels, others))
    assert set(first) != set(second)
    assert first[labels[first] == 1].tolist() == second[labels[second] == 1].tolist()


def test_long_tailed__weaker_imbalance_shows_the_same_and_more():
    data = Images(shuffled([50, 50, 50]))
    weak, strong = (LongTailedDataset(data, factor) for factor in (2, 10))
    assert set(strong.indices) < set(weak.indices)
    assert weak.metainfo['class_counts'][2] == 25 and strong.metainfo['class_counts'][2] == 5


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(imbalance_factor=0.9), 'Expected argument `imbalance_factor` to be a finite number of at least 1.*0.9'),
        (dict(imbalance_factor=float('inf')), 'Expected argument `imbalance_factor`'),
        (dict(imbalance_factor='10'), 'Expected argument `imbalance_factor`'),
        (dict(profile='linear'), r"`profile` to be one of \('exponential', 'step'\), but got 'linear'"),
        (dict(max_per_class=0), 'Expected argument `max_per_class` to be an integer of at least 1'),
        (dict(class_order=[0, 1, 1]), 'Expected argument `class_order` to be a permutation'),
        (dict(class_order=[1, 2, 3]), 'Expected argument `class_order` to be a permutation'),
        (dict(class_order=[1, 0]), 'Expected argument `class_order` to be a permutation of the 3 class indices'),
        (dict(class_order=5), 'Expected argument `class_order`'),
        (dict(max_per_class=31), r'class 0 \(ant\) has 30 images, but 31 are needed with max_per_class=31'),
        (dict(imbalance_factor=31), r'class 2 \(cat\) would get 0 images with max_per_class=30, imbalance_factor=31'),
        (dict(dataset=Images(shuffled([30, 0, 30]))), r'class 1 \(bee\) has no image in Images'),
    ],
)
def test_long_tailed__bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        LongTailedDataset(**{'dataset': Images(shuffled([30, 30, 30])), 'imbalance_factor': 10, **options})
