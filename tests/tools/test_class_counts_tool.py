import json
from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import LoadAnnotations
from mmengine.registry import TRANSFORMS
from PIL import Image

from sar_mm.datasets import read_class_counts

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'dataset_converters' / 'class_counts.py'


@pytest.fixture
def run(run_tool):
    """Run the tool in a folder; return all it printed."""
    return lambda folder, *arguments, code=0: run_tool(TOOL, *arguments, folder=folder, code=code)


def config(folder, name, dataset, scope):
    text = f'default_scope = {scope!r}\ntrain_dataloader = dict(batch_size=2, dataset={dataset!r})\n'
    (folder / f'{name}.py').write_text(text)
    return f'{name}.py'


@pytest.fixture(scope='module')
def segmentation(tmp_path_factory):
    """Two label maps of 2x4 pixels; there are no images."""
    root = tmp_path_factory.mktemp('segmentation')
    for kind in ('img', 'ann'):
        (root / 'data' / kind).mkdir(parents=True)
    for name, labels in (('x', [[0, 0, 1, 255], [1, 1, 1, 2]]), ('y', [[0, 1, 1, 1], [1, 1, 255, 1]])):
        Image.fromarray(np.array(labels, dtype=np.uint8)).save(root / 'data' / 'ann' / f'{name}.png')
        (root / 'data' / 'img' / f'{name}.jpg').touch()
    return root


def seg_dataset(classes, **options):
    return dict(
        type='BaseSegDataset',
        data_root='data',
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        metainfo=dict(classes=classes),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomCrop', crop_size=(1, 1)),
            dict(type='PackSegInputs'),
        ],
        **options,
    )


def test_class_counts_tool__label_maps(run, segmentation):
    pytest.importorskip('mmseg.datasets')
    name = config(segmentation, 'plain', seg_dataset(['a', 'b', 'c', 'd']), 'mmseg')
    output = run(segmentation, name)
    path = segmentation / 'data' / 'class_counts.json'
    assert json.loads(path.read_text()) == dict(classes=['a', 'b', 'c', 'd'], images=[2, 2, 1, 0], pixels=[3, 10, 1, 0])
    assert read_class_counts(str(path)) == [3, 10, 1, 0]
    assert '2 training images' in output and '71.43 %' in output and 'written to data/class_counts.json' in output
    assert 'warning: no label map shows class 3 (d)\n' in output and 'that are no class' not in output


def test_class_counts_tool__reduced_zero_label(run, segmentation):
    pytest.importorskip('mmseg.datasets')
    name = config(segmentation, 'reduced', seg_dataset(['b', 'c'], reduce_zero_label=True), 'mmseg')
    run(segmentation, name, '--out', 'reduced.json')
    counts = json.loads((segmentation / 'reduced.json').read_text())
    assert counts == dict(classes=['b', 'c'], images=[2, 1], pixels=[10, 1])


def test_class_counts_tool__wrapped_label_maps_count_once(run, segmentation):
    pytest.importorskip('mmseg.datasets')
    both = dict(type='ConcatDataset', datasets=[seg_dataset(['a', 'b', 'c']), seg_dataset(['a', 'b', 'c'])])
    name = config(segmentation, 'wrapped', dict(type='RepeatDataset', times=40, dataset=both), 'mmseg')
    run(segmentation, name, '--out', 'wrapped.json')
    assert json.loads((segmentation / 'wrapped.json').read_text())['pixels'] == [3, 10, 1]
    repeated = dict(type='RepeatDataset', times=40, dataset=seg_dataset(['a', 'b', 'c']))
    mixed = dict(type='MultiImageMixDataset', dataset=repeated, pipeline=[dict(type='RandomMosaic', prob=1)])
    name = config(segmentation, 'nested', dict(type='ConcatDataset', datasets=[mixed]), 'mmseg')
    run(segmentation, name, '--out', 'nested.json')
    assert json.loads((segmentation / 'nested.json').read_text())['pixels'] == [3, 10, 1]


@TRANSFORMS.register_module(force=True)
class LoadShiftedAnnotations(LoadAnnotations):
    """One less than what the file says; a class of mmcv's."""

    def __init__(self):
        super().__init__(with_bbox=False, with_label=False, with_seg=True, imdecode_backend='pillow')

    def _load_seg_map(self, results):
        super()._load_seg_map(results)
        results['gt_seg_map'] = (results['gt_seg_map'] - 1).astype(np.uint8)


LOAD = dict(type='LoadAnnotations')


@pytest.mark.parametrize(
    ('pipeline', 'pixels'),
    [
        ([dict(type='sar_mm.CheckedLoading', transforms=[dict(type='LoadImageFromFile'), LOAD])], [3, 10, 1]),
        ([dict(type='RandomApply', transforms=dict(type='mmseg.LoadAnnotations'), prob=0.5)], [3, 10, 1]),
        ([dict(type='RandomChoice', transforms=[[LOAD], [LOAD, dict(type='RandomFlip')]])], [3, 10, 1]),
        ([dict(type='sar_mm.MultiBranch', branch_field=['a'], a=[LOAD])], [3, 10, 1]),
        ([dict(type='LoadShiftedAnnotations')], [10, 1, 0]),
        ([dict(type='CheckedLoading', transforms=[dict(type='LoadShiftedAnnotations')], num_classes=1)], [10, 1, 0]),
    ],
    ids=range(6),
)
def test_class_counts_tool__finds_what_loads_label_maps(run, segmentation, pipeline, pixels):
    pytest.importorskip('mmseg.datasets')
    dataset = dict(seg_dataset(['a', 'b', 'c']), pipeline=pipeline)
    run(segmentation, config(segmentation, 'nested', dataset, 'mmseg'), '--out', 'nested.json')
    assert json.loads((segmentation / 'nested.json').read_text())['pixels'] == pixels


def test_class_counts_tool__masks_of_0_and_255(run, tmp_path):
    pytest.importorskip('mmseg.datasets')
    for kind in ('img', 'ann'):
        (tmp_path / 'data' / kind).mkdir(parents=True)
    Image.fromarray(np.array([[0, 0, 255, 255]], dtype=np.uint8)).save(tmp_path / 'data' / 'ann' / 'x.png')
    (tmp_path / 'data' / 'img' / 'x.jpg').touch()
    output = ' '.join(run(tmp_path, config(tmp_path, 'binary', seg_dataset(['wall', 'crack']), 'mmseg')).split())
    assert 'warning: no label map shows class 1 (crack)' in output
    assert 'the label maps have the values 0, 255, and 255 is the ignored label' in output
    assert 'write the label maps again with the values 0 to 1' in output
    assert json.loads((tmp_path / 'data/class_counts.json').read_text())['pixels'] == [2, 0]


def test_class_counts_tool__labels_that_are_no_class(run, segmentation):
    pytest.importorskip('mmseg.datasets')
    name = config(segmentation, 'short', seg_dataset(['a', 'b']), 'mmseg')
    output = run(segmentation, name, '--out', 'short.json')
    assert 'warning: 1 pixels have labels that are no class and not 255: [2]' in output
    assert json.loads((segmentation / 'short.json').read_text())['pixels'] == [3, 10]


@pytest.fixture(scope='module')
def classification(tmp_path_factory):
    root = tmp_path_factory.mktemp('classification')
    (root / 'data').mkdir()
    (root / 'data' / 'train.txt').write_text(''.join(f'{i}.png {label}\n' for i, label in enumerate([0] * 8 + [1] * 8)))
    return root


def cls_dataset(**options):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    return dict(type='CustomDataset', data_root='data', ann_file='train.txt', pipeline=pipeline, **options)


def test_class_counts_tool__images(run, classification):
    pytest.importorskip('mmpretrain.datasets')
    name = config(classification, 'plain', cls_dataset(classes=['ant', 'bee', 'cat']), 'mmpretrain')
    output = run(classification, name)
    counts = json.loads((classification / 'data' / 'class_counts.json').read_text())
    assert counts == dict(classes=['ant', 'bee', 'cat'], images=[8, 8, 0])
    assert '16 training images' in output and '50.00 %' in output
    assert 'warning: no image shows class 2 (cat)\n' in output


def test_class_counts_tool__long_tailed_view_and_options(run, classification):
    pytest.importorskip('mmpretrain.datasets')
    view = dict(type='sar_mm.LongTailedDataset', imbalance_factor=2, dataset=cls_dataset())
    name = config(classification, 'view', view, 'mmpretrain')
    run(classification, name, '--out', 'view.json')
    assert json.loads((classification / 'view.json').read_text()) == dict(classes=['0', '1'], images=[8, 4])
    run(classification, name, '--out', 'v.json', '--cfg-options', 'train_dataloader.dataset.imbalance_factor=8')
    assert json.loads((classification / 'v.json').read_text())['images'] == [8, 1]


def test_class_counts_tool__images_of_folds_and_repetitions_count_once(run, classification):
    pytest.importorskip('mmpretrain.datasets')
    view = dict(type='sar_mm.LongTailedDataset', imbalance_factor=8, dataset=cls_dataset())
    balanced = dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=view)
    both = dict(type='ConcatDataset', datasets=[balanced, view])
    run(classification, config(classification, 'balanced', both, 'mmpretrain'), '--out', 'balanced.json')
    assert json.loads((classification / 'balanced.json').read_text())['images'] == [8, 1]


def test_class_counts_tool__errors(run, classification):
    pytest.importorskip('mmpretrain.datasets')

    def message(expected, *arguments):
        assert expected in run(classification, *arguments, code=2)

    message('error: there is no config absent.py', 'absent.py')
    (classification / 'empty.py').write_text('model = dict()\n')
    message('error: the config has no train_dataloader', 'empty.py', '--out', 'x.json')
    name = config(classification, 'rootless', dict(cls_dataset(), data_root=''), 'mmpretrain')
    message('say where with --out', name)
    name = config(classification, 'missing', dict(cls_dataset(), ann_file='absent.txt'), 'mmpretrain')
    message('absent.txt', name)
    view = dict(type='sar_mm.LongTailedDataset', imbalance_factor=0.5, dataset=cls_dataset())
    name = config(classification, 'bad', view, 'mmpretrain')
    message('Expected argument `imbalance_factor`', name)


def test_class_counts_tool__as_a_command(run_process, classification):
    output = run_process(TOOL, 'absent.py', folder=classification, code=2)
    assert 'error: there is no config absent.py' in output and 'Traceback' not in output
