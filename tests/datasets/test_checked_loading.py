import numpy as np
import pytest

import sar_mm  # noqa: F401
from sar_mm.datasets.checked_loading import CheckedLoading
from sar_mm.registry import TRANSFORMS


def loading(num_classes=3, **loaded):
    """A loading of what is given, instead of from a file."""
    return CheckedLoading([lambda results: dict(results, **loaded)], num_classes)


@pytest.mark.parametrize(
    'options, name',
    [
        (dict(transforms={}), 'transforms'),
        (dict(transforms=[], num_classes=0), 'num_classes'),
        (dict(transforms=[], num_classes='19'), 'num_classes'),
        (dict(transforms=[], ignore_index='no'), 'ignore_index'),
    ],
)
def test_checked_loading__names_bad_arguments(options, name):
    with pytest.raises(ValueError, match=f'argument `{name}`'):
        TRANSFORMS.build(dict(type='CheckedLoading', **options))


def test_checked_loading__changes_nothing_that_is_right():
    labels = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    loaded = dict(img=np.zeros((2, 2, 3)), gt_seg_map=labels, gt_label=2, seg_fields=['gt_seg_map'])
    found = loading(**loaded)(dict(img_path='a.png', reduce_zero_label=False))
    assert found == dict(img_path='a.png', reduce_zero_label=False, **loaded)


@pytest.mark.parametrize('label', [[0, 2], np.array([1]), np.int64(0), []])
def test_checked_loading__takes_labels_of_several_kinds(label):
    assert loading(gt_label=label)(dict(img_path='a.png'))['gt_label'] is label
    with pytest.raises(ValueError, match="image 'a.png' has labels that are no class: 3 "):
        loading(gt_label=[*np.atleast_1d(label), 3])(dict(img_path='a.png'))


def test_checked_loading__without_classes_looks_at_no_label():
    assert loading(num_classes=None, gt_label=300)(dict(img_path='a.png'))['gt_label'] == 300


def test_checked_loading__lets_the_data_set_take_another_image():
    assert CheckedLoading([lambda results: None])(dict(img_path='a.png')) is None


def test_checked_loading__shows_itself():
    assert repr(TRANSFORMS.build(dict(type='CheckedLoading', transforms=[]))) == 'CheckedLoading([], num_classes=None)'
