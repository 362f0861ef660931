import pytest
from mmengine.dataset import BaseDataset
from torch.utils.data import Subset

from sar_mm.datasets import (
    SemiSupervisedDataset,
    class_counts,
    distinct_class_counts,
    distinct_images,
)
from sar_mm.registry import DATASETS

LABELS = [0, 0, 1, 0, 0, 2, 0, 0]


@DATASETS.register_module('DistinctImages', force=True)
class Images(BaseDataset):
    """Images in memory or, with a folder, in files."""

    METAINFO = dict(classes=('a', 'b', 'c'))

    def __init__(self, labels=LABELS, folder=None, **kwargs):
        self.labels, self.folder = labels, folder
        super().__init__(**kwargs)

    def load_data_list(self):
        paths = [dict() if self.folder is None else dict(img_path=f'{self.folder}/{i}.png') for i in range(99)]
        return [dict(path, gt_label=label) for path, label in zip(paths, self.labels)]

    def get_cat_ids(self, idx):
        return [self.get_data_info(idx)['gt_label']]


def images(*labels, **options):
    return dict(type='DistinctImages', labels=labels or LABELS, **options)


def balanced(dataset):
    # Frequency 1/8: repeated sqrt(0.5 / 0.125) = 2 times.
    return dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=dataset)


def repeated(times, dataset):
    return dict(type='RepeatDataset', times=times, dataset=dataset)


def joined(*datasets):
    return dict(type='ConcatDataset', datasets=list(datasets))


def view(name, dataset, **options):
    return dict(type=f'sar_mm.{name}', dataset=dataset, **options)


@pytest.mark.parametrize(
    ('config', 'seen', 'distinct'),
    [
        (images(), [6, 1, 1], [6, 1, 1]),
        (repeated(40, images()), [6, 1, 1], [6, 1, 1]),
        (repeated(3, repeated(2, balanced(images()))), [6, 2, 2], [6, 1, 1]),
        (balanced(images()), [6, 2, 2], [6, 1, 1]),
        (joined(images(), images(1, 2, 2)), [6, 2, 3], [6, 2, 3]),
        (joined(repeated(5, images(1, 2, 2)), images()), [6, 6, 11], [6, 2, 3]),
        (joined(repeated(3, balanced(images()))), [18, 6, 6], [6, 1, 1]),
        # The same files twice, in other files, and in memory.
        (joined(balanced(images(folder='x')), images(folder='x')), [12, 3, 3], [6, 1, 1]),
        (joined(images(folder='x'), images(folder='y')), [12, 2, 2], [12, 2, 2]),
        (joined(images(folder='x'), images(2, 2)), [6, 1, 3], [6, 1, 3]),
        (balanced(view('LongTailedDataset', images(*[0, 1, 2] * 16), imbalance_factor=16)), [16, 8, 4], [16, 4, 1]),
        (repeated(2, view('LabelledSubset', images(), part='labelled', fraction=0.5)), [3, 1, 1], [3, 1, 1]),
    ],
    ids=range(12),
)
def test_distinct_class_counts__of_wrappers(config, seen, distinct):
    data = DATASETS.build(config)
    assert distinct_class_counts(data) == distinct
    assert class_counts(data) == seen


def test_distinct_images__are_the_first_of_each():
    data = DATASETS.build(balanced(images()))
    assert distinct_images(data) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert distinct_images(DATASETS.build(joined(images(folder='x'), images(*[0] * 9, folder='x')))) == [*range(8), 16]
    assert distinct_images(Subset(data, [2, 3, 4])) == [0, 2]


def test_distinct_images__a_wrapper_that_nobody_knows():
    class Every:
        metainfo = dict(classes=('a', 'b', 'c'))

        def __init__(self, dataset):
            self.dataset = dataset

        def __len__(self):
            return 4

    assert distinct_images(Every(Images())) == [0, 1, 2, 3]


def test_distinct_class_counts__labelled_images_of_a_semi_supervised_data_set():
    data = SemiSupervisedDataset(balanced(images()), images(), labelled_among_unlabelled=True)
    assert distinct_class_counts(data) == [6, 1, 1] and class_counts(data) == [6, 2, 2]


def test_distinct_class_counts__of_mmpretrain_with_folds(tmp_path):
    pytest.importorskip('mmpretrain.datasets')
    (tmp_path / 'list.txt').write_text(''.join(f'{i}.png {label}\n' for i, label in enumerate(LABELS)))
    inner = dict(
        type='mmpretrain.CustomDataset', data_root=str(tmp_path), ann_file='list.txt', classes=['a', 'b', 'c', 'd']
    )
    folds = dict(type='mmpretrain.KFoldDataset', fold=0, num_splits=4, dataset=inner)  # without the first two
    assert distinct_class_counts(DATASETS.build(repeated(3, folds))) == [4, 1, 1, 0]
    assert distinct_class_counts(DATASETS.build(balanced(folds))) == [4, 1, 1, 0]
    both = DATASETS.build(joined(folds, dict(folds, fold=1), inner))
    assert distinct_class_counts(both) == [6, 1, 1, 0]
    assert class_counts(both) == [15, 2, 3, 0]
