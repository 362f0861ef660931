import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import MODELS, DefaultScope

import sar_mm.evaluation

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / 'configs' / 'quickstart'
CLASSIFICATION = 'resnet18_1xb64-300iter_digits-lt'
SEGMENTATION = 'fcn_unet_1xb16-400iter_digit-scenes-64x64'
TOOL = str(ROOT / 'tools' / 'analysis_tools' / 'compare_features.py')


@pytest.fixture(scope='module')
def folder(digits, tmp_path_factory):
    """A copy of the data, as class counts join it, and untrained checkpoints whose anchors are set."""
    pytest.importorskip('sklearn')
    folder = tmp_path_factory.mktemp('compare')
    shutil.copytree(digits, folder / 'data')
    MODULE2PACKAGE['mmseg'] = 'mmseg'
    for name, toolbox in ((CLASSIFICATION, 'mmpretrain'), (SEGMENTATION, 'mmseg')):
        pytest.importorskip(f'{toolbox}.models')
        for prefix in ('', 'sar_'):
            torch.manual_seed(0)
            with DefaultScope.overwrite_default_scope(toolbox):
                model = MODELS.build(Config.fromfile(QUICKSTART / f'{prefix}{name}.py').model)
            for key, value in model.state_dict().items():
                if key.endswith('semantic_anchors'):
                    value.normal_()
            torch.save(dict(state_dict=model.state_dict()), folder / f'{prefix}{name}.pth')
    counts = dict(classes=[*map(str, range(10)), 'background'], images=[9] * 11, pixels=[10**k for k in range(11)])
    (folder / 'counts.json').write_text(json.dumps(counts))
    # As tools/dataset_converters/class_counts.py writes it by default.
    (folder / 'data/digits/segmentation/class_counts.json').write_text(json.dumps(counts))
    return folder


@pytest.fixture(scope='module')
def run(run_tool, folder):
    return lambda *arguments, code=0: run_tool(TOOL, *arguments, folder=folder, code=code)


def arguments(name, *others):
    pairs = [(QUICKSTART / f'{prefix}{name}.py', f'{prefix}{name}.pth') for prefix in ('', 'sar_')]
    return [argument for pair in pairs for argument in pair] + list(others)


@pytest.mark.parametrize(
    'name, score',
    [(CLASSIFICATION, 'balanced_accuracy'), (SEGMENTATION, 'mIoU/common')],
    ids=['classification', 'segmentation'],
)
def test_compare_features__writes_numbers_and_pictures(folder, run, run_process, name, score):
    options = arguments(name, '--names', 'plain,anchored', '--samples-per-class', 5, '--out', f'out_{name}')
    output = run(*options) if name == SEGMENTATION else run_process(TOOL, *options, folder=folder)
    numbers = json.loads((folder / f'out_{name}' / 'geometry.json').read_text())
    assert list(numbers) == ['plain', 'anchored']
    assert 'geometry/anchor_distance' in numbers['anchored'] and 'geometry/anchor_distance' not in numbers['plain']
    # The same untrained model twice: all but the anchors is equal.
    shared = set(numbers['plain'])
    assert {key: numbers['anchored'][key] for key in shared} == numbers['plain']
    assert {score, 'geometry/nc1_cdnv', 'geometry/nc3_self_duality'} <= shared
    assert not any(key.startswith(('accuracy/', 'IoU/')) for key in shared)
    assert numbers['plain']['geometry/classes_seen'] == (10 if name == CLASSIFICATION else 11)
    assert '| geometry/nc1_cdnv ' in output and 'plain | ' in output and ' anchored |' in output
    for picture in ('cosines', 'frequency', 'tsne'):
        assert (folder / f'out_{name}' / f'{picture}.png').stat().st_size > 10000


@pytest.mark.parametrize(
    'command, message',
    [
        (
            arguments(SEGMENTATION, '--cfg-options', 'train_dataloader.dataset.data_root=nowhere'),
            'name a file by --class-counts',
        ),
        (arguments(CLASSIFICATION, '--class-counts', 'absent.json'), 'there are no class counts in absent.json'),
        (
            arguments(CLASSIFICATION, '--class-counts', 'counts.json'),
            'there are 11 class counts, but the test set of',
        ),
        (arguments(CLASSIFICATION, '--layer', 'head.nothing'), "but got 'head.nothing'"),
        (arguments(CLASSIFICATION, '--names', 'one'), '--names takes two different names'),
        (arguments(CLASSIFICATION, '--samples-per-class', 0), '--samples-per-class is to be at least 1'),
        (arguments(CLASSIFICATION)[:3] + ['absent.pth'], 'there is no checkpoint absent.pth'),
        (
            arguments(SEGMENTATION, '--cfg-options', "model.test_cfg.mode='slide'"),
            '--cfg-options model.test_cfg.mode=whole',
        ),
    ],
)
def test_compare_features__typing_errors(run, command, message):
    assert message in run(*command, code=2)


@pytest.fixture(scope='module')
def tool():
    return SimpleNamespace(**runpy.run_path(str(Path(TOOL).with_name('examining.py'))))


def counts_file(path, images, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(classes=['a', 'b'], images=images, **({} if pixels is None else dict(pixels=pixels)))
    path.write_text(json.dumps(content))
    return str(path)


def test_group_metric__of_the_first_config_that_has_one(tool):
    stock = Config(dict(default_scope='mmpretrain', test_evaluator=dict(type='Accuracy')))
    metrics = [dict(type='Accuracy'), dict(type='sar_mm.GroupAccuracy', many=50, few=0, per_class=True)]
    sar = Config(dict(default_scope='mmpretrain', test_evaluator=metrics))
    assert tool.group_metric([stock, stock]) == {}
    assert tool.group_metric([stock, sar]) == tool.group_metric([sar, stock]) == dict(many=50, few=0)
    metric = dict(type=sar_mm.evaluation.GroupAccuracy, class_counts=[3, 1])
    assert tool.group_metric([Config(dict(val_evaluator=metric))]) == dict(class_counts=[3, 1])


def test_group_metric__of_segmentation(tool):
    metric = dict(type='GroupIoUMetric', common=0.3, rare=0.1, iou_metrics=['mDice'])
    assert tool.group_metric([Config(dict(default_scope='mmseg', test_evaluator=metric))]) == dict(common=0.3, rare=0.1)


def test_training_counts__of_segmentation(tool, tmp_path):
    written = counts_file(tmp_path / 'root' / 'class_counts.json', [2, 1], [20, 10])
    other = counts_file(tmp_path / 'other.json', [4, 3], [40, 30])
    dataset = dict(type='RepeatDataset', times=2, dataset=dict(type='Absent', data_root=str(tmp_path / 'root')))
    cfg = Config(dict(default_scope='mmseg', train_dataloader=dict(dataset=dataset)))
    hooked = Config(dict(cfg, custom_hooks=[dict(type='ClassCountsHook', file=written, kind='images')]))
    assert tool.training_counts([cfg, cfg], None) == ([20, 10], 'pixels')
    assert tool.training_counts([cfg, hooked], None) == ([2, 1], 'images')
    assert tool.training_counts([cfg, hooked], other) == ([40, 30], 'pixels')


def test_training_counts__of_classification(tool, tmp_path):
    pytest.importorskip('mmpretrain.datasets')
    written = counts_file(tmp_path / 'class_counts.json', [8, 7])
    (tmp_path / 'train.txt').write_text('0.png 0\n1.png 0\n2.png 1\n')
    options = dict(data_root=str(tmp_path), ann_file='train.txt', classes=['a', 'b'])
    repeated = dict(type='RepeatDataset', times=30, dataset=dict(type='mmpretrain.CustomDataset', **options))
    cfg = Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=repeated)))
    hook = dict(type='ClassCountsHook')
    assert tool.training_counts([Config(dict(cfg, custom_hooks=[hook]))], None) == ([2, 1], 'images')
    hooked = Config(dict(cfg, custom_hooks=[dict(hook, file=written, kind='images')]))
    assert tool.training_counts([cfg, hooked], None) == ([8, 7], 'images')
    (tmp_path / 'train.txt').unlink()  # a machine without the training data
    assert tool.training_counts([cfg], None) == ([8, 7], 'images')


def test_compare_features__takes_the_groups_of_the_config(folder, run):
    text = """_base_ = {base!r}
test_evaluator = [dict(type='Accuracy'), dict(type='sar_mm.GroupAccuracy', many=1, few=0)]
"""
    (folder / 'grouped.py').write_text(text.format(base=str(QUICKSTART / f'sar_{CLASSIFICATION}.py')))
    command = [QUICKSTART / f'{CLASSIFICATION}.py', f'{CLASSIFICATION}.pth', 'grouped.py', f'sar_{CLASSIFICATION}.pth']
    run(*command, '--samples-per-class', 5, '--out', 'out_grouped')
    numbers = json.loads((folder / 'out_grouped' / 'geometry.json').read_text())
    # All classes have more than one training image.
    for model in numbers.values():
        assert 'few' not in model and 'medium' not in model and model['many'] == model['balanced_accuracy']


@pytest.mark.slow
def test_compare_features__of_semi_supervised_models(folder, run):
    name = 'resnet18-fixmatch_1xb20-600iter_digits-40labels'
    for prefix in ('', 'sar_'):
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(Config.fromfile(QUICKSTART / f'{prefix}{name}.py').model)
        torch.save(dict(state_dict=model.state_dict()), folder / f'{prefix}{name}.pth')
    run(*arguments(name, '--samples-per-class', 5, '--out', 'out_semi'))
    numbers = json.loads((folder / 'out_semi' / 'geometry.json').read_text())
    assert numbers['stock'] == numbers['SAR']  # the same untrained model twice, whose anchors were never set
    # 4 labeled images of each class count, not the 1257 that there are.
    assert numbers['stock']['few'] == numbers['stock']['balanced_accuracy'] and 'many' not in numbers['stock']
