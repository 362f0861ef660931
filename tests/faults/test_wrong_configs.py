"""Wrong configs, each an error before the first training step"""

import argparse
import copy
import gc
import json
import os
import re
import runpy
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from wrong_configs import CASES, CLS, CONFIG_FILES, SEG, SEMI_CLS, SEMI_SEG

from sar_mm.engine.checks import check_run
from sar_mm.engine.cli import build_runner, load_config, usage_errors

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / 'configs' / 'quickstart'
CONFIGS = {
    SEG: 'sar_fcn_unet_1xb16-400iter_digit-scenes-64x64.py',
    CLS: 'sar_resnet18_1xb64-300iter_digits-lt.py',
    SEMI_SEG: 'sar_fcn_unet_1xb16-400iter_digit-scenes-64x64.py',
    SEMI_CLS: 'sar_resnet18-fixmatch_1xb20-600iter_digits-40.py',
}

_NUMBERS = count()


class SteppedError(Exception):
    """A training step was about to be made."""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with the digits and a few files that configs name."""
    safetensors = pytest.importorskip('safetensors.torch')
    folder = tmp_path_factory.mktemp('work')
    argv, sys.argv = sys.argv, ['digits.py', '--out', str(folder / 'data' / 'digits')]
    try:
        runpy.run_path(str(ROOT / 'tools' / 'dataset_converters' / 'digits.py'), run_name='__main__')
    finally:
        sys.argv = argv
    np.save(folder / 'ten.npy', np.ones((10, 8), dtype=np.float32))
    np.save(folder / 'flat.npy', np.ones(11, dtype=np.float32))
    safetensors.save_file({'clip': torch.ones(11, 8), 'glove': torch.ones(11, 8)}, folder / 'two.safetensors')
    (folder / 'three.json').write_text(json.dumps(dict(classes=['a', 'b', 'c'], images=[3, 2, 1])))
    return folder


@pytest.fixture(scope='module')
def configs():
    """The configs as they are read, one for each kind, with small models."""
    configs = {kind: Config.fromfile(QUICKSTART / name) for kind, name in CONFIGS.items()}
    for kind in (SEG, SEMI_SEG):
        configs[kind].model.backbone.base_channels = 4
        configs[kind].model.decode_head.in_channels = 4
    model = dict(_delete_=True, type='SemiSegmentor', segmentor=configs[SEMI_SEG].model, semi=dict())
    configs[SEMI_SEG].merge_from_dict(dict(model=model))
    return configs


@pytest.fixture(autouse=True)
def quick(monkeypatch, folder):
    """Leave out what takes long and has nothing to do with errors, and stop in front of the first training step."""

    def step(*args):
        raise SteppedError

    monkeypatch.chdir(folder)
    monkeypatch.setattr(Config, 'pretty_text', property(repr))
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)
    for loop in (IterBasedTrainLoop, EpochBasedTrainLoop):
        monkeypatch.setattr(loop, 'run_iter', step)


def train(monkeypatch, config, cfg_options=None, change=None):
    """Do what tools/train.py does with a config, or one that is read already, until the first step."""
    path = config
    if not isinstance(config, str):
        path = __file__  # any file that is there
        monkeypatch.setattr(Config, 'fromfile', staticmethod(lambda path: copy.deepcopy(config)))
    with usage_errors():
        arguments = dict(config=path, cfg_options=cfg_options, work_dir='runs', launcher='none', local_rank=0)
        cfg = load_config(argparse.Namespace(**arguments))
        cfg.merge_from_dict(change or {})
        cfg.experiment_name = str(next(_NUMBERS))  # mmengine keeps what it has made under such a name
        runner = build_runner(cfg)
    with usage_errors(cfg):
        check_run(runner)
        runner.train()


def message_of(capsys):
    """Return the one message that was printed."""
    (message,) = re.findall(r'^error: (.+)', capsys.readouterr().err, re.MULTILINE | re.DOTALL)
    return message.strip()


def outcome_of(message, folder):
    """Return a message without what differs from machine to machine."""
    message = re.sub(r' \(raised at .*\)', '', ' '.join(message.split()))
    message = re.sub(r'(?<![\w.-])/\S*/(?=[\w.-]+\.py)', '', message.replace(f'{folder}/', ''))
    return re.sub(r' at 0x[0-9a-f]+', '', message if len(message) <= 300 else f'{message[:297]}...')


@pytest.mark.parametrize('base', CONFIGS)
def test_config__without_a_mistake_gets_to_its_first_step(monkeypatch, configs, base):
    if base == SEMI_SEG:
        pytest.skip('made for errors of the model; it has no data of its own')
    with pytest.raises(SteppedError):
        train(monkeypatch, configs[base])


@pytest.mark.parametrize(
    'kind, case',
    [
        pytest.param(kind, case, id=f'{kind.lower()}-{index}-{case.fault[:60]}')
        for kind, cases in CASES.items()
        for index, case in enumerate(cases)
    ],
)
def test_config__mistake(monkeypatch, capsys, record_property, folder, configs, kind, case):
    options = dict(cfg_options=case.options) if kind == 'COMMAND_LINE' else dict(change=case.options)
    with pytest.raises(SystemExit) as exit_:
        train(monkeypatch, configs[case.base], **options)
    message = message_of(capsys)
    assert exit_.value.code == 2
    assert [word for word in case.words if word not in message] == [], message
    flag = '--cfg-options ' if kind == 'COMMAND_LINE' else ''
    record_property('fault', f'{flag}{case.fault}')
    record_property('outcome', outcome_of(message, folder))


@pytest.mark.parametrize('text', CONFIG_FILES)
def test_config__file_that_cannot_be_read(monkeypatch, capsys, record_property, folder, text):
    if 'custom_import' in text:
        text = f"_base_ = 'mmseg::_base_/default_runtime.py'\n{text}"
    (folder / 'wrong.py').write_text(text)
    with pytest.raises(SystemExit):
        train(monkeypatch, 'wrong.py')
    message = message_of(capsys)
    words = CONFIG_FILES[text.splitlines()[-1]]
    assert [word for word in words if word not in message] == [], message
    record_property('fault', text.splitlines()[-1])
    record_property('outcome', outcome_of(message, folder))


@pytest.mark.parametrize(
    'change, words',
    [
        ({'model.head.anchor_head.momentum': 1.5}, 'argument `momentum` to be a number in [0, 1], but got 1.5'),
        ({'model.head.anchor_head.momentun': 0.9}, "SemanticAnchorHead.*unexpected keyword argument 'momentun'"),
        ({'model.head.type': 'SARLinearHead'}, 'SARLinearHead is not in the .* registry'),
        (
            {'model.head.type': 'SARClsHead'},
            'ClsHead can have no semantic anchors: it has no classifier layer; use SARLin',
        ),
    ],
    ids=str,
)
def test_config__mistake_met_by_a_stock_runner(record_property, folder, configs, change, words):
    """The tools of the toolboxes know nothing of places in configs; the errors are still those of the constructors."""
    cfg = copy.deepcopy(configs[CLS])
    cfg.merge_from_dict(dict(change, work_dir='runs'))
    with pytest.raises((KeyError, TypeError, ValueError)) as error, DefaultScope.overwrite_default_scope('mmpretrain'):
        Runner.from_cfg(cfg)
    pattern = words if '.*' in words else re.escape(words)
    assert re.search(pattern, str(error.value).replace('__init__() got an', 'got an'))
    ((key, value),) = change.items()
    record_property('fault', f"{key}={value!r}, trained by a toolbox's own tool")
    record_property('outcome', outcome_of(f'{type(error.value).__name__}: {error.value}', folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, option, words',
    [
        (CLS, 'model.head.anchor_head.momentun=0.99', 'did you mean momentum?'),
        (CLS, 'model.head.num_classes=7', 'set num_classes=10'),
        (CLS, 'train_dataloader.sampler.sufle=True', 'did you mean shuffle?'),
        (SEG, 'model.decode_head.anchor_head.loss.pull_weight=-1', 'a finite number of at least 0, but got -1'),
    ],
)
def test_config__mistake_met_by_the_tool(record_property, folder, kind, option, words):
    command = [
        sys.executable,
        str(ROOT / 'tools' / 'train.py'),
        str(QUICKSTART / CONFIGS[kind]),
        '--cfg-options',
        option,
    ]
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='')
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    messages = re.findall(r'^error: (.+)', result.stderr, re.MULTILINE)
    assert result.returncode == 2 and len(messages) == 1, result.stderr[-2000:]
    assert option.split('=')[0] in messages[0] and words in messages[0]
    assert 'Traceback' not in result.stdout + result.stderr and 'Iter(train)' not in result.stdout + result.stderr
    record_property('fault', f'tools/train.py --cfg-options {option}')
    record_property('outcome', f'exit code 2; {outcome_of(messages[0], folder)}')
