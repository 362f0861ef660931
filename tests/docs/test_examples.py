"""The code of the pages on how to add something, and the configs of the guides, as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from sar_mm import allow_bases
from sar_mm.models import SARLoss
from sar_mm.registry import ANCHORS, DATASETS, MODELS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / 'docs'


def blocks(page, language='python'):
    """The blocks of a page that are of one language."""
    text = (DOCS / f'{page}.md').read_text(encoding='utf-8')
    return re.findall(rf'^```{language}\n(.*?)^```', text, re.M | re.S)


def run(*codes):
    """Run codes one after the other, as one module, and return its names."""
    names = {'__name__': 'documented'}
    for code in codes:
        exec(code, names)
    return names


@pytest.fixture(autouse=True)
def registries():
    """Registries that forget what a page registers."""
    from sar_mm import registry

    children = [getattr(registry, name) for name in ('MODELS', 'DATASETS', 'ANCHORS')]
    both = [each for child in children for each in (child, child.parent) if each is not None]
    before = [dict(each.module_dict) for each in both]
    yield
    for each, modules in zip(both, before):
        for name in each.module_dict.keys() - modules.keys():
            del each.module_dict[name]


def test_add_anchors(tmp_path):
    code, config = blocks('add_anchors')
    run(code)
    anchors = ANCHORS.build(dict(type='BinaryAnchors'))(10, 64)
    assert anchors.shape == (10, 64) and set(anchors.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(anchors, ANCHORS.build(dict(type='BinaryAnchors'))(10, 64))
    options = run(config)['model']['decode_head']['anchor_head']
    head = MODELS.build(dict(type='SemanticAnchorHead', num_classes=3, channels=8, **options))
    assert set(head.anchors.unique().tolist()) == {-1.0, 1.0}


def test_add_distance__pulls_by_the_hellinger_distance():
    code, config = blocks('add_distance')
    run(code)
    loss = MODELS.build(run(config)['model']['decode_head']['anchor_head']['loss'])
    assert isinstance(loss, SARLoss) and loss.pull_weight == 10.0
    feature, anchors = torch.randn(6, 5, requires_grad=True), torch.randn(3, 5)
    target = torch.tensor([0, 1, 2, 2, 255, 0])
    pull = loss.pull(feature=feature, semantic_anchors=anchors, target=target, ignore_index=255, gate=None, weight=None)
    expected = []
    for row, label in zip(feature.detach(), target.tolist()):
        if label != 255:
            bhattacharyya = (row.softmax(0) * anchors[label].softmax(0)).sqrt().sum()
            expected.append((2 - 2 * bhattacharyya).item() / 5)
    assert pull.item() == pytest.approx(np.mean(expected), rel=1e-5)
    pull.backward()
    assert feature.grad[:4].abs().sum() > 0 and feature.grad[4].abs().sum() == 0


def test_add_head__both_heads_have_anchor_losses():
    pytest.importorskip('mmpretrain.models')
    from mmpretrain.structures import DataSample

    names = run(*blocks('add_head'))
    samples = [DataSample().set_gt_label(label) for label in (0, 1, 2, 0)]
    for kind in ('SARMyHead', 'SARTwoLayerHead'):
        options = dict(loss=dict(type='CrossEntropyLoss')) if kind == 'SARTwoLayerHead' else {}
        init_default_scope('mmpretrain')
        head = MODELS.build(dict(type=kind, num_classes=3, in_channels=8, **options))
        losses = head.loss((torch.randn(4, 8),), samples)
        assert {'loss', 'loss_anchor', 'loss_pull', 'anchor_gate'} <= set(losses)
    # What the page says of the methods of the mixin is there.
    table = re.findall(r'^\| `(\w+)\(', (DOCS / 'add_head.md').read_text(encoding='utf-8'), re.M)
    assert len(table) == 4 and all(hasattr(names['SARTwoLayerHead'], method) for method in table)


def write_images(folder):
    image = pytest.importorskip('PIL.Image')
    rng = np.random.default_rng(0)
    for split, number in (('train', 8), ('val', 2)):
        for label in range(10):
            (folder / split / f'class{label}').mkdir(parents=True)
            for index in range(number):
                pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                image.fromarray(pixels).save(folder / split / f'class{label}' / f'{index}.png')


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The configs of the page, in the folders that it names, and their data."""
    pytest.importorskip('mmpretrain.models')
    allow_bases()
    text = (DOCS / 'add_dataset.md').read_text(encoding='utf-8')
    files = re.findall(r'^`(configs/\S+\.py)`[^\n]*\n(?:[^`\n]+\n)*\n```python\n(.*?)^```', text, re.M | re.S)
    assert [name for name, _ in files][0] == 'configs/_base_/datasets/mine.py' and len(files) == 3
    for name, code in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    write_images(tmp_path / 'data' / 'mine')
    monkeypatch.chdir(tmp_path)
    return [Config.fromfile(name) for name, _ in files[1:]]


def test_add_dataset__twins_differ_by_the_head(written):
    stock, sar = written
    assert stock.model.head.type == 'LinearClsHead' and sar.model.head.type == 'SARLinearClsHead'
    sar.model.head.type = 'LinearClsHead'
    sar.pop('custom_imports')
    assert sar.to_dict() == stock.to_dict()


@pytest.mark.slow
@pytest.mark.ci
def test_add_dataset__its_config_trains(written, tmp_path):
    from sar_mm.engine.runner import ResumableRunner

    config = written[1]
    config.work_dir = str(tmp_path / 'work')
    config.train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
    config.train_dataloader.num_workers = config.val_dataloader.num_workers = 0
    config.test_dataloader.num_workers = 0
    init_default_scope('mmpretrain')
    runner = ResumableRunner.from_cfg(config)
    runner.train()
    log = (Path(runner.log_dir) / 'vis_data' / 'scalars.json').read_text()
    assert 'accuracy/top1' in log
    assert runner.message_hub.get_scalar('train/loss_anchor').current() > 0


def test_add_dataset__every_other_image(written):
    (code,) = [block for block in blocks('add_dataset') if 'class EveryOther' in block]
    run(code)
    init_default_scope('mmpretrain')
    dataset = dict(written[0].train_dataloader.dataset)
    view = DATASETS.build(dict(type='EveryOther', dataset=dataset))
    assert len(view) == 40 and view.metainfo['class_counts'] == (4,) * 10
    assert view.get_data_info(3)['img_path'].endswith('class0/6.png')


# ----- The guides

CONFIGS = [
    pytest.param(page, code, id=f'{page}-{number}')
    for page in ('../README', 'get_started', 'segmentation', 'classification')
    for number, code in enumerate(blocks(page))
    if code.startswith('_base_')
]


@pytest.mark.parametrize('page, code', CONFIGS)
def test_guides__model_of_a_config_can_be_built(page, code, tmp_path):
    for toolbox in ('mmseg', 'mmpretrain'):
        if f'{toolbox}::' in code:
            pytest.importorskip(f'{toolbox}.models')
            scope = toolbox
    allow_bases()
    (tmp_path / 'config.py').write_text(code)
    config = Config.fromfile(tmp_path / 'config.py')
    init_default_scope(scope)
    model = MODELS.build(config.model)
    heads = [name for name, module in model.named_modules() if type(module).__name__ == 'SemanticAnchorHead']
    assert len(heads) == len(re.findall(r"type='SAR", code))


def test_guides__other_settings_are_valid_python():
    for page in ('get_started', 'segmentation', 'options', 'installation'):
        for code in blocks(page):
            compile(code, page, 'exec')
    (settings,) = [code for code in blocks('segmentation') if 'custom_keys' in code]
    segformer = Config.fromfile(next((ROOT / 'configs/segmentation/segformer').glob('sar_*80k_pascal*.py')))
    keys = segformer.optim_wrapper.paramwise_cfg.custom_keys
    for name, setting in run(settings)['optim_wrapper']['paramwise_cfg']['custom_keys'].items():
        assert keys[name] == setting


def test_options__defaults_are_those_of_the_code():
    from inspect import signature

    text = (DOCS / 'options.md').read_text(encoding='utf-8')
    head, loss = (signature(MODELS.get(kind).__init__).parameters for kind in ('SemanticAnchorHead', 'SARLoss'))
    for title, parameters, others in (
        ('## Anchor head', head, {'self', 'num_classes', 'channels', 'loss', 'ignore_index'}),
        ('## Losses', loss, {'self'}),
    ):
        section = text.split(title)[1].split('\n## ')[0]
        rows = dict(re.findall(r'^\| `(\w+)` \| `([^`]+)` \|', section, re.M))
        assert set(rows) == set(parameters) - others
        for name, default in rows.items():
            assert eval(default) == parameters[name].default, name
    kinds = set(re.findall(r'^\| `(\w+Anchors)` \|', text, re.M))
    assert kinds == set(ANCHORS.module_dict)


@pytest.mark.slow
@pytest.mark.ci
def test_get_started__the_first_commands_train(tmp_path):
    pytest.importorskip('mmpretrain.models')
    pytest.importorskip('sklearn')
    command = blocks('get_started', 'bash')[0].replace('SARLinearClsHead', 'SARLinearClsHead train_cfg.max_iters=2')
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    environment = dict(os.environ, PATH=path, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    result = subprocess.run(['bash', '-ec', command], cwd=tmp_path, env=environment, **pipe)
    assert result.returncode == 0, result.stdout[-3000:]
    assert list((tmp_path / 'work_dirs/try').glob('iter_2.pth'))
