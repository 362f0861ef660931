import json
import pickle

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset

from sar_mm.datasets import LongTailedDataset, class_counts, read_class_counts
from sar_mm.registry import DATASETS


@DATASETS.register_module(force=True)
class CountedImages(BaseDataset):
    """A data set in memory."""

    def __init__(self, labels, metainfo=None, **kwargs):
        self.labels = labels
        super().__init__(metainfo=metainfo or dict(classes=('a', 'b', 'c')), serialize_data=False, **kwargs)

    def load_data_list(self):
        return [dict(gt_label=label) for label in self.labels]

    def get_cat_ids(self, idx):
        return [int(self.get_data_info(idx)['gt_label'])]


class OnlyLabels:
    metainfo = dict(classes=('a', 'b', 'c', 'd'))

    def __len__(self):
        return 4

    def get_gt_labels(self):
        return np.array([2, 2, 0, 2])


class SegmentationImages(BaseDataset):
    METAINFO = dict(classes=('road', 'sky'))

    def load_data_list(self):
        return [dict(seg_map_path='a.png')]


LABELS = [0, 0, 1, 0, 0, 2, 0, 0]


@pytest.mark.parametrize('lazy_init', [False, True])
def test_class_counts__of_a_data_set(lazy_init):
    assert class_counts(CountedImages(LABELS, lazy_init=lazy_init)) == [6, 1, 1]


def test_class_counts__every_class_has_an_entry():
    assert class_counts(CountedImages([1, 1])) == [0, 2, 0]
    assert class_counts(CountedImages([1, 1], metainfo=dict(dataset_type='no names'))) == [0, 2]


def test_class_counts__of_labels_alone():
    counts = class_counts(OnlyLabels())
    assert counts == [1, 0, 3, 0] and all(type(count) is int for count in counts)


def test_class_counts__an_image_counts_for_each_of_its_labels():
    class Tagged(CountedImages):
        def get_cat_ids(self, idx):
            return self.get_data_info(idx)['gt_label']

    assert class_counts(Tagged([[0, 2], [], [2]])) == [1, 0, 2]


def test_class_counts__of_wrappers():
    data = CountedImages(LABELS)
    other = CountedImages([1, 2, 2])
    assert class_counts(RepeatDataset(data, times=3)) == [6, 1, 1]  # a longer epoch, the same frequencies
    assert class_counts(ConcatDataset([data, other])) == [6, 2, 3]
    # Repeat factors: class frequency 1/8, sqrt(0.5 / 0.125) = 2.
    balanced = ClassBalancedDataset(data, oversample_thr=0.5)
    assert class_counts(balanced) == [6, 2, 2]
    # A part that is repeated is more frequent than the others.
    thrice = dict(type='RepeatDataset', times=3, dataset=other)
    assert class_counts(ConcatDataset([thrice, data])) == [6, 4, 7]


def test_class_counts__wrappers_do_not_hand_on_the_counts_of_a_long_tailed_view():
    view = dict(type='LongTailedDataset', dataset=CountedImages([0, 1, 2] * 4), imbalance_factor=4)
    assert class_counts(DATASETS.build(view)) == [4, 2, 1]
    repeated = RepeatDataset(dict(view, type='sar_mm.LongTailedDataset'), times=2)
    assert repeated.metainfo['class_counts'] == (4, 2, 1)
    assert class_counts(repeated) == [4, 2, 1]
    assert class_counts(ConcatDataset([dict(view, type='sar_mm.LongTailedDataset')] * 2)) == [8, 4, 2]


def test_class_counts__believes_the_metainfo():
    counted = dict(classes=('a', 'b'), class_counts=(2, 1))
    assert class_counts(CountedImages([1, 1, 1], metainfo=counted)) == [2, 1]
    # Of a part or a repetition, they are somebody else's.
    assert class_counts(CountedImages([1, 1], metainfo=counted)) == [0, 2]
    with pytest.raises(ValueError, match=r"metainfo\['class_counts'\]` to be of length 2"):
        class_counts(CountedImages([0] * 4, metainfo=dict(counted, class_counts=(2, 1, 1))))


def test_class_counts__of_mmpretrain_with_folds(tmp_path):
    datasets = pytest.importorskip('mmpretrain.datasets')
    (tmp_path / 'list.txt').write_text(''.join(f'{i}.png {label}\n' for i, label in enumerate(LABELS)))
    options = dict(data_root=str(tmp_path), ann_file='list.txt', classes=['a', 'b', 'c', 'd'])
    assert class_counts(datasets.CustomDataset(**options)) == [6, 1, 1, 0]
    folds = dict(
        type='mmpretrain.KFoldDataset', fold=0, num_splits=4, dataset=dict(type='mmpretrain.CustomDataset', **options)
    )
    assert class_counts(DATASETS.build(folds)) == [4, 1, 1, 0]  # without the first two


def test_class_counts__of_a_segmentation_data_set():
    for data in (SegmentationImages(), RepeatDataset(SegmentationImages(), 2)):
        with pytest.raises(ValueError, match=r'no labels of images to count.*tools/dataset_converters/class_counts.py'):
            class_counts(data)


@pytest.mark.parametrize('labels', [[0, 3], [-1, 0]])
def test_class_counts__labels_out_of_range(labels):
    with pytest.raises(ValueError, match=r'labels of CountedImages` to be in \[0, 3\)'):
        class_counts(CountedImages(labels))


def test_read_class_counts__both_kinds(tmp_path):
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps(dict(classes=['road', 'sky'], images=[3, 0], pixels=[4000, 0])))
    assert read_class_counts(str(path)) == [4000, 0]
    assert read_class_counts(str(path), kind='images') == [3, 0]
    path.write_text(path.read_text(), encoding='utf-8-sig')
    assert read_class_counts(str(path)) == [4000, 0]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'{"classes": ["a"], "images": [', 'counts.json is not a JSON file of class counts'),
        (pickle.dumps(dict(classes=['a'], pixels=[1])), 'counts.json is not a JSON file of class counts'),
        (b'[1, 2]', 'has no list "classes"'),
        (b'{"pixels": [1]}', 'has no list "classes"'),
        (b'{"classes": ["a"], "images": [1]}', r"has no counts of kind='pixels', only of \['images'\]"),
        (b'{"classes": ["a", "b"], "pixels": [1]}', r'one count for each of the 2 classes'),
        (b'{"classes": ["a"], "pixels": 1}', r'one count for each of the 1 classes'),
        (b'{"classes": ["a", "b"], "pixels": [1, -1]}', 'pixels of class b in .*to be an integer of at least 0'),
        (b'{"classes": ["a"], "pixels": [1.5]}', 'pixels of class a in .*to be an integer'),
    ],
)
def test_read_class_counts__bad_files(tmp_path, content, message):
    path = tmp_path / 'counts.json'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_class_counts(str(path))


def test_read_class_counts__bad_arguments(tmp_path):
    with pytest.raises(FileNotFoundError, match='tools/dataset_converters/class_counts.py CONFIG` writes them'):
        read_class_counts(str(tmp_path / 'absent.json'))
    with pytest.raises(ValueError, match='Expected argument `kind`'):
        read_class_counts(str(tmp_path / 'absent.json'), kind='boxes')


def test_class_counts__view_of_a_view():
    view = LongTailedDataset(CountedImages([0, 1, 2] * 8), imbalance_factor=4)
    assert class_counts(LongTailedDataset(view, imbalance_factor=1)) == [2, 2, 2]
