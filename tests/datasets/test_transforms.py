import numpy as np
import pytest
from mmengine.dataset import Compose

from sar_mm.datasets import MultiBranch
from sar_mm.registry import TRANSFORMS


def add(number):
    def transform(results):
        results['img'] += number
        return results

    return transform


def picture():
    return np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)


def test_multi_branch__every_branch_has_its_own_transforms():
    results = dict(img=np.zeros(3), keys=['a'])
    views = MultiBranch(weak=[], strong=[add(1), add(2)])(results)
    assert list(views) == ['weak', 'strong']
    assert views['weak']['img'].tolist() == [0] * 3 and views['strong']['img'].tolist() == [3] * 3


def test_multi_branch__branches_do_not_share_memory():
    results = dict(img=np.zeros(3), keys=['a'])
    views = MultiBranch(weak=[], strong=[], strong2=[])(results)
    images = [results['img']] + [view['img'] for view in views.values()]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(images) for b in images[:i])
    views['weak']['keys'].append('b')
    assert results['keys'] == views['strong']['keys'] == ['a']


def test_multi_branch__one_rejected_view_rejects_the_image():
    assert MultiBranch(weak=[], strong=[lambda results: None])(dict(img=np.zeros(3))) is None


def test_multi_branch__geometry_before_it_is_shared():
    config = dict(type='MultiBranch', weak=[], strong=[dict(type='mmcv.Normalize', mean=[100] * 3, std=[1] * 3)])
    before = [
        dict(type='mmcv.RandomResize', scale=(16, 12), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='mmcv.RandomFlip', prob=0.5),
    ]
    pipeline = Compose([*before, config])
    shapes = set()
    for seed in range(10):
        np.random.seed(seed)
        views = pipeline(dict(img=picture(), img_shape=(12, 16)))
        weak, strong = views['weak']['img'].astype(np.float32), views['strong']['img']
        shapes.add(weak.shape)
        assert np.abs(weak[..., ::-1] - 100 - strong).max() == 0  # Normalize swaps the channels
    assert len(shapes) > 1


def test_multi_branch__segmentation_pipeline(tmp_path):
    pytest.importorskip('mmseg.datasets')
    from mmengine.registry import DefaultScope
    from PIL import Image

    Image.fromarray(picture()).save(tmp_path / 'x.png')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='RandomResize', scale=(16, 12), ratio_range=(1.0, 2.0), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(6, 6)),
        dict(type='RandomFlip', prob=0.5),
        dict(
            type='MultiBranch',
            weak=[dict(type='PackSegInputs')],
            same=[dict(type='PackSegInputs')],
            strong=[dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')],
        ),
    ]
    with DefaultScope.overwrite_default_scope('mmseg'):
        views = Compose(pipeline)(dict(img_path=str(tmp_path / 'x.png'), seg_fields=[]))
    assert views['weak']['inputs'].equal(views['same']['inputs'])
    assert views['weak']['inputs'].shape == views['strong']['inputs'].shape == (3, 6, 6)
    samples = [views[name]['data_samples'] for name in ('weak', 'strong')]
    assert samples[0].metainfo == samples[1].metainfo


def test_multi_branch__builds_from_a_config():
    branch = TRANSFORMS.build(dict(type='MultiBranch', weak=[dict(type='mmcv.RandomFlip', prob=0.5)]))
    assert isinstance(branch, MultiBranch) and 'weak=[RandomFlip' in repr(branch)


@pytest.mark.parametrize(
    ('branches', 'message'),
    [
        (dict(), 'Expected argument `branches` to be at least one list of transforms'),
        ({'strong-1': []}, "name of a branch` to be an identifier, but got 'strong-1'"),
        (dict(weak=dict(type='RandomFlip')), 'Expected argument `weak` to be a list of transforms'),
    ],
)
def test_multi_branch__bad_arguments(branches, message):
    with pytest.raises(ValueError, match=message):
        MultiBranch(**branches)
