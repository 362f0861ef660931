"""Lets the tests here import the helpers next to them, and trains a tiny model in this process."""

import runpy
import shutil
import subprocess
import sys
import tempfile
from collections import OrderedDict
from itertools import count
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

sys.path.append(str(Path(__file__).parent))
from kill_tasks import QUICKSTART, ROOT  # noqa: E402

CONFIG = f"""
_base_ = {str(QUICKSTART / 'sar_resnet18_1xb64-300iter_digits-lt.py')!r}
model = dict(backbone=dict(stem_channels=8, base_channels=8), head=dict(in_channels=32))
train_dataloader = dict(batch_size=4, dataset=dict(indices=16))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=3))
train_cfg = dict(val_interval=100)
"""
_numbers = count()


@pytest.fixture(scope='session')
def place():
    """A folder with data and a config, that any user may read."""
    pytest.importorskip('mmpretrain.models')
    folder = Path(tempfile.mkdtemp(prefix='checkpoints'))
    folder.chmod(0o755)
    tool = ROOT / 'tools' / 'dataset_converters' / 'digits.py'
    data = str(folder / 'data' / 'digits')
    subprocess.run([sys.executable, str(tool), '--out', data], check=True, stdout=subprocess.DEVNULL)
    (folder / 'config.py').write_text(CONFIG)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def train(place, monkeypatch, capfd):
    """Run tools/train.py, in this process; return its exit code and what it printed."""
    monkeypatch.chdir(place)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))

    def run(work_dir, until, *arguments, options=()):
        monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())  # a Runner changes the scope of all tests
        options = [f'train_cfg.max_iters={until}', f'experiment_name=run{next(_numbers)}', *options]
        command = ['train.py', 'config.py', '--work-dir', str(work_dir), *arguments, '--cfg-options', *options]
        monkeypatch.setattr(sys, 'argv', command)
        capfd.readouterr()
        try:
            runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')
            code = 0
        except SystemExit as end:
            code = end.code
        return code, ''.join(capfd.readouterr())

    return run


@pytest.fixture
def work_dir(place, train):
    """A work folder, relative to the current one, with the checkpoints of iterations 2, 4 and 6."""
    first = place / 'trained'
    if not first.exists():
        assert train('trained', 6)[0] == 0
    # Checkpoints name their folder, so it is there under its own name only.
    kept = place / 'kept'
    if not kept.exists():
        shutil.copytree(first, kept)
    shutil.rmtree(first)
    shutil.copytree(kept, first)
    return first
