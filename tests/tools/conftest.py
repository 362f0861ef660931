"""Real checkpoints of the quickstart configs, as their users have them after training."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
# The averaged weights of EMAHook are what such a checkpoint holds under `state_dict`.
CONFIG = """
_base_ = {base!r}
train_cfg = dict(max_iters=3, val_begin=10)
default_hooks = dict(checkpoint=dict(interval=3))
custom_hooks = [dict(type='EMAHook', momentum=0.5)]
"""


def run(folder, *command):
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='')
    pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=environment, text=True, timeout=300, **pipe
    )
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Run a tool, in this process, with a command line; return what it prints."""

    def run_tool(path, *arguments, code=0):
        monkeypatch.setattr(sys, 'argv', [Path(path).name, *map(str, arguments)])
        try:
            runpy.run_path(str(path), run_name='__main__')
            found = 0
        except SystemExit as error:
            found = error.code
        output = ''.join(capsys.readouterr())
        assert found == code, output
        return output

    return run_tool


@pytest.fixture(scope='session')
def quickstart(tmp_path_factory):
    """Train a SAR config of the quickstart for three steps: its config, the stock one, the checkpoint, test images."""
    pytest.importorskip('mmseg.models')
    pytest.importorskip('mmpretrain.models')
    folder = tmp_path_factory.mktemp('quickstart')
    run(folder, ROOT / 'tools/dataset_converters/digits.py')
    made = {}

    def train(name):
        if name not in made:
            sar, stock = (ROOT / 'configs/quickstart' / f'{prefix}{name}.py' for prefix in ('sar_', ''))
            config = folder / f'{name}.py'
            config.write_text(CONFIG.format(base=str(sar)))
            run(folder, ROOT / 'tools/train.py', config, '--work-dir', name)
            kind = 'segmentation/img_dir/val' if 'scenes' in name else 'classification/test'
            images = sorted((folder / 'data/digits' / kind).rglob('*.png'))
            checkpoint = folder / name / 'iter_3.pth'
            made[name] = SimpleNamespace(
                folder=folder, sar=str(sar), stock=str(stock), checkpoint=checkpoint, images=images
            )
        return made[name]

    return train
