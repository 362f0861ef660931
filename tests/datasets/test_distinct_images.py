import pytest
from in_memory import Images, balanced, images, joined, long_tailed, part, repeated
from torch.utils.data import Subset

from sar_mm.datasets import SemiSupervisedDataset, class_counts, distinct_class_counts, distinct_images
from sar_mm.registry import DATASETS

LABELS = [0, 0, 1, 0, 0, 2, 0, 0]


def few(*labels, **options):
    return images(labels=labels or LABELS, **options)


def twice(dataset):
    # Frequency 1/8 of the classes 1 and 2: repeated sqrt(0.5 / 0.125) = 2 times.
    return balanced(dataset, 0.5)


@pytest.mark.parametrize(
    ('config', 'seen', 'distinct'),
    [
        (few(), [6, 1, 1], [6, 1, 1]),
        (repeated(few(), 40), [6, 1, 1], [6, 1, 1]),
        (repeated(repeated(twice(few()), 2), 3), [6, 2, 2], [6, 1, 1]),
        (twice(few()), [6, 2, 2], [6, 1, 1]),
        (joined(few(), few(1, 2, 2)), [6, 2, 3], [6, 2, 3]),
        (joined(repeated(few(1, 2, 2), 5), few()), [6, 6, 11], [6, 2, 3]),
        (joined(repeated(twice(few()), 3)), [18, 6, 6], [6, 1, 1]),
        # The same files twice, in other files, and in memory.
        (joined(twice(few(folder='x')), few(folder='x')), [12, 3, 3], [6, 1, 1]),
        (joined(few(folder='x'), few(folder='y')), [12, 2, 2], [12, 2, 2]),
        (joined(few(folder='x'), few(2, 2)), [6, 1, 3], [6, 1, 3]),
        (twice(long_tailed(few(*[0, 1, 2] * 16), 16)), [16, 8, 4], [16, 4, 1]),
        (repeated(part('unlabeled', few(*LABELS, 1, 2), 1), 2), [5, 1, 1], [5, 1, 1]),
    ],
    ids=range(12),
)
def test_distinct_class_counts__of_wrappers(config, seen, distinct):
    data = DATASETS.build(config)
    assert distinct_class_counts(data) == distinct
    assert class_counts(data) == seen


def test_distinct_images__are_the_first_of_each():
    data = DATASETS.build(twice(few()))
    assert distinct_images(data) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert distinct_images(DATASETS.build(joined(few(folder='x'), few(*[0] * 9, folder='x')))) == [*range(8), 16]
    assert distinct_images(Subset(data, [2, 3, 4])) == [0, 2]


def test_distinct_images__an_unknown_wrapper():
    class Every:
        def __init__(self, dataset):
            self.dataset = dataset

        def __len__(self):
            return 4

    assert distinct_images(Every(Images())) == [0, 1, 2, 3]


def test_distinct_class_counts__labeled_images_of_a_semi_supervised_data_set():
    data = SemiSupervisedDataset(twice(few()), few(), labeled_among_unlabeled=True)
    assert distinct_class_counts(data) == [6, 1, 1] and class_counts(data) == [6, 2, 2]


def test_distinct_class_counts__of_mmpretrain_with_folds(tmp_path):
    pytest.importorskip('mmpretrain.datasets')
    (tmp_path / 'list.txt').write_text(''.join(f'{i}.png {label}\n' for i, label in enumerate(LABELS)))
    options = dict(data_root=str(tmp_path), ann_file='list.txt', serialize_data=False)
    inner = dict(type='mmpretrain.CustomDataset', classes=['a', 'b', 'c', 'd'], **options)
    assert class_counts(DATASETS.build(inner)) == [6, 1, 1, 0]
    folds = dict(type='mmpretrain.KFoldDataset', fold=0, num_splits=4, dataset=inner)  # without the first two
    assert class_counts(DATASETS.build(folds)) == [4, 1, 1, 0]
    assert distinct_class_counts(DATASETS.build(repeated(folds))) == [4, 1, 1, 0]
    assert distinct_class_counts(DATASETS.build(twice(folds))) == [4, 1, 1, 0]
    both = DATASETS.build(joined(folds, dict(folds, fold=1), inner))
    assert distinct_class_counts(both) == [6, 1, 1, 0]
    assert class_counts(both) == [15, 2, 3, 0]
