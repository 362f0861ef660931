"""The settings of docs/distributed.md, and the scripts that launch several processes."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def settings():
    """The settings that the page has, by their headings."""
    page = (ROOT / 'docs' / 'distributed.md').read_text(encoding='utf-8')
    return dict(re.findall(r'^## ([^\n]+)\n(?:(?!^## )[^\n]*\n)*?```python\n(.*?)```', page, re.MULTILINE | re.DOTALL))


TRAINED = ['The mean over several processes', 'Gradient accumulation', 'FSDP', 'Activation checkpointing']


def test_settings__are_all_tested():
    assert list(settings()) == [*TRAINED, 'Mixed precision', 'torch.compile']
    found = {}
    exec(settings()['Mixed precision'] + settings()['torch.compile'], found)
    # See test_amp.py and test_compile.py in tests/models: these take a GPU, or minutes.
    assert found['optim_wrapper'] == dict(type='AmpOptimWrapper', loss_scale='dynamic') and found['compile'] is True


@pytest.fixture(scope='module')
def workplace(tmp_path_factory):
    """A folder with data, and a function that runs shell commands there, at once, and returns what they print."""
    pytest.importorskip('mmseg.models')
    folder = tmp_path_factory.mktemp('distributed')
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    environment = dict(os.environ, PATH=path, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')

    def run(*commands):
        options = dict(cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        started = [subprocess.Popen(command, shell=True, **options) for command in commands]
        outputs = [process.communicate(timeout=300)[0] for process in started]
        for process, output in zip(started, outputs):
            assert process.returncode == 0, output[-3000:]
        return outputs

    run(f'python {ROOT}/tools/dataset_converters/digits.py')
    return folder, run


OVERRIDES = [
    *('train_cfg.max_iters=4', 'train_cfg.val_interval=100', 'train_dataloader.batch_size=2'),
    *('default_hooks.logger.interval=1', 'log_processor.window_size=1'),
    *('default_hooks.checkpoint.interval=100', 'default_hooks.checkpoint.save_last=False'),
]


def train_command(folder, settings='', overrides=(), processes=2, environment=''):
    """The command that trains the quickstart's model with these settings."""
    base = ROOT / 'configs' / 'quickstart' / 'sar_fcn_unet_1xb16-400iter_digit-scenes-64x64.py'
    config = folder / f'config_{len(list(folder.glob("config_*.py")))}.py'
    config.write_text(f'_base_ = {str(base)!r}\n{settings}')
    script = ROOT / 'tools' / 'dist_train.sh'
    return f'{environment} bash {script} {config} {processes} --cfg-options {" ".join([*OVERRIDES, *overrides])}'


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def losses_in(output):
    return [float(loss) for loss in re.findall(r'Iter\(train\) .* loss: ([\d.]+)', output)]


@pytest.fixture(scope='module')
def plain_losses(workplace):
    folder, run = workplace
    (output,) = run(train_command(folder, environment=f'PORT={free_port()}'))
    return losses_in(output)


@pytest.mark.slow
@pytest.mark.parametrize(
    'heading', [pytest.param(each, marks=[pytest.mark.ci] if each == 'FSDP' else []) for each in TRAINED]
)
def test_settings__train_on_two_processes(heading, workplace, plain_losses):
    folder, run = workplace
    overrides = ['strategy.model_wrapper.device_id=cpu'] if heading == 'FSDP' else []
    command = train_command(folder, settings()[heading], overrides, environment=f'PORT={free_port()}')
    losses = losses_in(run(command)[0])
    assert len(losses) == len(plain_losses) == 4
    if heading == 'Gradient accumulation':
        assert losses[0] == plain_losses[0] and losses[1] != plain_losses[1]
    else:
        assert losses == pytest.approx(plain_losses, rel=5e-3)


@pytest.mark.slow
def test_dist_train__two_nodes(workplace, plain_losses):
    folder, run = workplace
    address = f'NNODES=2 MASTER_ADDR=127.0.0.1 PORT={free_port()}'
    nodes = [f'{address} NODE_RANK={rank}' for rank in range(2)]
    outputs = run(*(train_command(folder, processes=1, environment=node) for node in nodes))
    # The process of rank 0 writes the log.
    assert losses_in(outputs[0]) == pytest.approx(plain_losses, abs=1e-3)
    assert 'GPU number: 2' in outputs[0]


def test_slurm_train__command(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    environment = dict(os.environ, PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}', GPUS='16', GPUS_PER_NODE='8')
    command = ['bash', str(ROOT / 'tools' / 'slurm_train.sh'), 'partition', 'job', 'config.py', '--resume']
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert '-p partition --job-name=job --gres=gpu:8 --ntasks=16 --ntasks-per-node=8' in output
    assert output.endswith('tools/train.py config.py --launcher slurm --resume\n')
