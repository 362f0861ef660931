import json
import pickle

import numpy as np
import pytest
from in_memory import Images, LabelMaps, images, long_tailed, repeated
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset

from sar_mm.datasets import LongTailedDataset, class_counts, read_class_counts
from sar_mm.registry import DATASETS

LABELS = [0, 0, 1, 0, 0, 2, 0, 0]


class OnlyLabels:
    metainfo = dict(classes=('a', 'b', 'c', 'd'))

    def __len__(self):
        return 4

    def get_gt_labels(self):
        return np.array([2, 2, 0, 2])


@pytest.mark.parametrize('lazy_init', [False, True])
def test_class_counts__of_a_data_set(lazy_init):
    assert class_counts(Images(LABELS, lazy_init=lazy_init)) == [6, 1, 1]


def test_class_counts__every_class_has_an_entry():
    assert class_counts(Images([1, 1])) == [0, 2, 0]
    data = Images([1, 1])
    data._metainfo = {}
    assert class_counts(data) == [0, 2]


def test_class_counts__of_labels_alone():
    counts = class_counts(OnlyLabels())
    assert counts == [1, 0, 3, 0] and all(type(count) is int for count in counts)


def test_class_counts__an_image_counts_for_each_of_its_labels():
    assert class_counts(Images([[0, 2], [], [2]])) == [1, 0, 2]


def test_class_counts__of_wrappers():
    data = Images(LABELS)
    other = Images([1, 2, 2])
    assert class_counts(RepeatDataset(data, times=3)) == [6, 1, 1]  # a longer epoch, the same frequencies
    assert class_counts(ConcatDataset([data, other])) == [6, 2, 3]
    # Repeat factors: class frequency 1/8, sqrt(0.5 / 0.125) = 2.
    balanced = ClassBalancedDataset(data, oversample_thr=0.5)
    assert class_counts(balanced) == [6, 2, 2]
    # A part that is repeated is more frequent than the others.
    thrice = dict(type='RepeatDataset', times=3, dataset=other)
    assert class_counts(ConcatDataset([thrice, data])) == [6, 4, 7]


def test_class_counts__wrappers_do_not_use_the_counts_of_a_long_tailed_view():
    view = long_tailed(images(labels=[0, 1, 2] * 4))
    assert class_counts(DATASETS.build(view)) == [4, 2, 1]
    data = DATASETS.build(repeated(view))
    assert data.metainfo['class_counts'] == (4, 2, 1) and class_counts(data) == [4, 2, 1]
    assert class_counts(ConcatDataset([view] * 2)) == [8, 4, 2]
    view = LongTailedDataset(Images([0, 1, 2] * 8), imbalance_factor=4)
    assert class_counts(LongTailedDataset(view, imbalance_factor=1)) == [2, 2, 2]


def test_class_counts__uses_the_metainfo():
    counted = dict(classes=('a', 'b'), class_counts=(2, 1))
    assert class_counts(Images([1, 1, 1], metainfo=counted)) == [2, 1]
    # Of a part or a repetition, they are those of another data set.
    assert class_counts(Images([1, 1], metainfo=counted)) == [0, 2]
    with pytest.raises(ValueError, match=r"metainfo\['class_counts'\]` to be of length 2"):
        class_counts(Images([0] * 4, metainfo=dict(counted, class_counts=(2, 1, 1))))


def test_class_counts__of_a_segmentation_data_set():
    for data in (LabelMaps(), RepeatDataset(LabelMaps(), 2)):
        with pytest.raises(ValueError, match=r'no labels of images to count.*tools/dataset_converters/class_counts.py'):
            class_counts(data)


@pytest.mark.parametrize('labels', [[0, 3], [-1, 0]])
def test_class_counts__labels_out_of_range(labels):
    with pytest.raises(ValueError, match=r'labels of Images` to be in \[0, 3\)'):
        class_counts(Images(labels))


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
