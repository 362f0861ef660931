"""Running the tools, the data of the quickstart, and real checkpoints of its configs."""

import importlib
import io
import os
import runpy
import subprocess
import sys
from collections import OrderedDict
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.utils import ManagerMixin

# Modules that the tests share lie beside them.
sys.path.append(str(Path(__file__).parent))

from conversions import training_checkpoint  # noqa: E402

ROOT = Path(__file__).parents[2]
# The averaged weights of EMAHook are what such a checkpoint holds under `state_dict`.
CONFIG = """
_base_ = {base!r}
train_cfg = dict(max_iters=3, val_begin=10)
default_hooks = dict(checkpoint=dict(interval=3))
custom_hooks = [dict(type='EMAHook', momentum=0.5)]
"""


def subclasses(kind):
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


@pytest.fixture(scope='session')
def run_tool():
    """Run a tool in this process, with a command line in a folder; return what it prints.

    As in a process of its own, it finds no logger, message hub, visualizer or scope of earlier runs: mmengine keeps
    these by name, as long as the process lives.
    """

    def run_tool(path, *arguments, folder=None, code=0):
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
            for kind in subclasses(ManagerMixin):
                patch.setattr(kind, '_instance_dict', OrderedDict())
            patch.setattr(sys, 'argv', [Path(path).name, *map(str, arguments)])
            patch.syspath_prepend(str(Path(path).parent))
            patch.setenv('LOCAL_RANK', '0')  # as the tools do
            patch.setenv('COLUMNS', '120')
            patch.chdir(folder or Path.cwd())
            found = 0
            try:
                runpy.run_path(str(path), run_name='__main__')
            except SystemExit as stop:
                found = stop.code or 0
            if isinstance(found, str):
                print(found)
                found = 1
        assert found == code, output.getvalue()[-3000:]
        return output.getvalue()

    return run_tool


@pytest.fixture(scope='session')
def run_process():
    """Run a Python script in a process of its own, as a user would; return what it prints."""

    def run_process(path, *arguments, folder, code=0, **variables):
        environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='', **variables)
        command = [sys.executable, str(path), *map(str, arguments)]
        pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        result = subprocess.run(command, cwd=folder, env=environment, **pipe)
        assert result.returncode == code, result.stdout[-3000:]
        return result.stdout

    return run_process


@pytest.fixture(scope='module')
def scripts():
    """The modules of the cost benchmarks, imported as they import each other: their folder is on the path."""
    names = ['measure', 'pull_op', 'train_step', 'gpu', 'peers', 'growth']
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools' / 'benchmarks'))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope='session')
def digits(run_tool, tmp_path_factory):
    """The folder `data` of the quickstart, to read from."""
    folder = tmp_path_factory.mktemp('digits')
    run_tool(ROOT / 'tools/dataset_converters/digits.py', folder=folder)
    return folder / 'data'


@pytest.fixture(scope='module')
def folder(digits, tmp_path_factory):
    """A folder to work in, with the data of the quickstart."""
    folder = tmp_path_factory.mktemp('work')
    (folder / 'data').symlink_to(digits)
    return folder


@pytest.fixture(scope='session')
def quickstart(run_tool, digits, tmp_path_factory):
    """Train a SAR config of the quickstart for three steps: its config, the stock one, the checkpoint, test images."""
    pytest.importorskip('mmseg.models')
    pytest.importorskip('mmpretrain.models')
    folder = tmp_path_factory.mktemp('quickstart')
    (folder / 'data').symlink_to(digits)
    made = {}

    def train(name):
        if name not in made:
            sar, stock = (ROOT / 'configs/quickstart' / f'{prefix}{name}.py' for prefix in ('sar_', ''))
            config = folder / f'{name}.py'
            config.write_text(CONFIG.format(base=str(sar)))
            run_tool(ROOT / 'tools/train.py', config, '--work-dir', name, folder=folder)
            kind = 'segmentation/img_dir/val' if 'scenes' in name else 'classification/test'
            images = sorted((folder / 'data/digits' / kind).rglob('*.png'))
            checkpoint = folder / name / 'iter_3.pth'
            made[name] = SimpleNamespace(
                folder=folder, sar=str(sar), stock=str(stock), checkpoint=checkpoint, images=images
            )
        return made[name]

    return train


@pytest.fixture
def convert(run_tool):
    """Run a converter with a command line; return what it prints."""
    return lambda tool, *arguments, code=0: run_tool(
        ROOT / 'tools' / 'model_converters' / f'{tool}.py', *arguments, code=code
    )


@pytest.fixture
def saved(tmp_path, make_model):
    """Save the training checkpoint of a tiny SAR model."""

    def save(kind):
        model = make_model(kind, sar=True)
        torch.save(training_checkpoint(model), tmp_path / 'trained.pth')
        return model, tmp_path / 'trained.pth', tmp_path / 'sub' / 'out.pth'

    return save
