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
from wrong_configs import CHECKED, CLS, COMMAND_LINE, CONFIG_FILES, RAISED, SEG, SEMI_CLS, SEMI_SEG, UNREAD

from sar_mm.cli.config import build_runner, load_config
from sar_mm.cli.errors import report_errors
from sar_mm.engine.checks import check_run

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / 'configs' / 'quickstart'
CONFIGS = {
    SEG: 'sar_fcn_unet_1xb16-400iter_digit-scenes-64x64.py',
    CLS: 'sar_resnet18_1xb64-300iter_digits-lt.py',
    SEMI_SEG: 'sar_fcn_unet_1xb16-400iter_digit-scenes-64x64.py',
    SEMI_CLS: 'sar_resnet18-fixmatch_1xb20-600iter_digits-40labels.py',
}

_NUMBERS = count()


class SteppedError(BaseException):
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
    with report_errors():
        arguments = dict(config=path, cfg_options=cfg_options, work_dir='runs', launcher='none', local_rank=0)
        cfg = load_config(argparse.Namespace(**arguments))
        cfg.merge_from_dict(change or {})
        cfg.experiment_name = str(next(_NUMBERS))  # mmengine keeps what it has made under such a name
    with report_errors(cfg):
        runner = build_runner(cfg)
        check_run(runner)
        runner.train()


@pytest.fixture
def refused(monkeypatch, capsys, record_property, folder):
    """Train with a mistake; return the exit code and the message: a sentence, or the end of a traceback and help."""

    def refuse(fault, *arguments, **options):
        with pytest.raises(SystemExit) as exit_:
            train(monkeypatch, *arguments, **options)
        code, printed = exit_.value.code, capsys.readouterr().err
        assert ('Traceback (most recent call last)' in printed) == (code == 1)
        message = re.findall(r'^(?:error: |help: |warning: |[\w.]*(?:Error|Exception): ).*', printed, re.MULTILINE)
        record_property('fault', fault)
        record_property('outcome', outcome_of('; '.join(message[-2:]), folder))
        return code, printed if code == 2 else '\n'.join(message[-2:])

    return refuse


def outcome_of(message, folder):
    """Return a message without what differs from machine to machine."""
    message = re.sub(r'(?<![\w.-])/\S*/(?=[\w.-]+\.py)', '', ' '.join(message.split()).replace(f'{folder}/', ''))
    return re.sub(r' at 0x[0-9a-f]+', '', message if len(message) <= 300 else f'{message[:297]}...')


def assert_said(words, message):
    assert [word for word in words if word not in message] == [], message


def identified(cases):
    return [pytest.param(case, id=f'{index}-{case.fault[:60]}') for index, case in enumerate(cases)]


@pytest.mark.parametrize('base', [SEG, CLS, SEMI_CLS])
def test_config__without_a_mistake_gets_to_its_first_step(monkeypatch, capsys, configs, base):
    with pytest.raises(SteppedError):
        train(monkeypatch, configs[base])
    assert not re.search('^(warning|help|error): ', capsys.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize('case', identified(CHECKED))
def test_config__mistake_that_is_checked(refused, configs, case):
    code, message = refused(case.fault, configs[case.base], change=case.options)
    assert code == 2
    assert_said(case.words, message)


@pytest.mark.parametrize('case', identified(RAISED))
def test_config__mistake_that_is_raised(refused, configs, case):
    code, message = refused(case.fault, configs[case.base], change=case.options)
    assert code == 1
    assert_said(case.words, message)


@pytest.mark.parametrize('case', identified(case for case, is_refused in COMMAND_LINE if is_refused))
def test_config__option_of_the_command_line_that_does_not_fit(refused, configs, case):
    code, message = refused(f'--cfg-options {case.fault}', configs[case.base], cfg_options=case.options)
    assert code == 2
    assert_said(case.words, message)


@pytest.mark.parametrize('case', identified(case for case, is_refused in COMMAND_LINE if not is_refused))
def test_config__option_of_the_command_line_that_nothing_reads(monkeypatch, capsys, configs, case):
    with pytest.raises(SteppedError):
        train(monkeypatch, configs[case.base], cfg_options=case.options)
    assert_said(case.words, capsys.readouterr().err)


@pytest.mark.parametrize('text', UNREAD)
def test_config__setting_that_nothing_reads(monkeypatch, capsys, configs, text):
    config = copy.deepcopy(configs[CLS])
    config.merge_from_dict(Config.fromstring(text, '.py').to_dict())
    with pytest.raises(SteppedError):
        train(monkeypatch, config)
    printed = capsys.readouterr().err
    assert ('warning: ' in printed) == bool(UNREAD[text])
    assert_said(UNREAD[text], printed)


@pytest.mark.parametrize('text', CONFIG_FILES)
def test_config__file_that_cannot_be_read(refused, folder, text):
    start = "_base_ = 'mmseg::_base_/default_runtime.py'\n" if 'custom_import' in text else ''
    (folder / 'wrong.py').write_text(start + text)
    _, message = refused(text, 'wrong.py')
    assert_said(CONFIG_FILES[text], message)


def test_config__head_of_a_package_of_the_user(refused, folder, configs, monkeypatch):
    """Its folder is on no path, and mmengine does not find it; nor does Python find what it imports itself."""
    (folder / 'mine').mkdir()
    (folder / 'mine' / 'my_package.py').write_text('import my_missing_part\n')
    (folder / 'wrong.py').write_text("custom_imports = dict(imports=['my_package'])\n")
    _, message = refused('a package of the user that is on no path', 'wrong.py')
    assert_said(('cannot import my_package', 'PYTHONPATH'), message)
    monkeypatch.syspath_prepend(str(folder / 'mine'))
    _, message = refused('a package that imports a module that is on no path', 'wrong.py')
    assert_said(('cannot import my_missing_part', 'PYTHONPATH'), message)


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
    'option, code, words',
    [
        ('model.head.anchor_head.momentum=2', 2, 'error: Expected argument `momentum`'),
        ('model.head.anchor_head.pull_weight=2', 1, 'help: model.head.anchor_head.pull_weight: SemanticAnchorHead has'),
    ],
)
def test_config__mistake_met_by_the_tool(record_property, folder, option, code, words):
    tool, config = ROOT / 'tools' / 'train.py', QUICKSTART / CONFIGS[CLS]
    work_dir = folder / f'run{code}'
    command = [sys.executable, str(tool), str(config), '--work-dir', str(work_dir), '--cfg-options', option]
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='')
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == code, result.stderr[-2000:]
    assert result.stderr.splitlines()[-1].startswith(words)
    (log,) = work_dir.glob('*/*.log')
    for printed in (result.stderr, log.read_text()):
        assert printed.count(words) == 1 and printed.count('Traceback (most recent') == (code == 1)
    assert 'Traceback' not in result.stdout and 'Iter(train)' not in result.stdout
    record_property('fault', f'tools/train.py --cfg-options {option}')
    record_property('outcome', f'exit code {code}; {outcome_of(result.stderr.splitlines()[-1], folder)}')
