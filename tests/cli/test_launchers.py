import threading
from datetime import timedelta

import pytest
import torch.distributed
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel, MMSeparateDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from sar_mm.checks import UsageError
from sar_mm.cli import launchers
from sar_mm.cli.launchers import _meet, model_wrapper, prepare_launcher

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason='PyTorch is built without distributed')


def meet(store, ranks, world_size):
    names = {}

    def run(rank):
        names[rank] = _meet(store, rank, world_size)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return names


def test_meet__each_start_has_a_name_of_its_own():
    """The store is torchrun's, which keeps what was written to it when it starts the processes again."""
    store = torch.distributed.HashStore()
    first, second = meet(store, [2, 0, 1], 3), meet(store, [0, 1, 2], 3)
    assert sorted(first) == sorted(second) == [0, 1, 2]
    assert len(set(first.values())) == len(set(second.values())) == 1
    assert first[0] != second[0]


def test_meet__the_main_process_waits_for_those_of_its_own_start():
    store = torch.distributed.HashStore()
    store.set_timeout(timedelta(seconds=0.5))
    store.set('waiting/1', 'killed before it met the others')
    with pytest.raises(TimeoutError, match=r'processes \[1\] have not come within 0:00:00.5'):
        _meet(store, 0, 2)
    store.set_timeout(timedelta(seconds=20))
    names = meet(store, [0, 1], 2)
    assert len(names) == 2 and len(set(names.values())) == 1


def test_prepare_launcher__without_torchrun(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(UsageError, match='use tools/dist_train.sh CONFIG GPUS'):
        prepare_launcher(Config(dict(launcher='pytorch')))
    prepare_launcher(Config(dict(launcher='slurm')))  # which mmengine starts itself


@MODEL_WRAPPERS.register_module()
class CLITestParallel(MMDistributedDataParallel):
    """A user's own wrapper, which takes fewer options."""

    def __init__(self, module, device_ids, find_unused_parameters=False):
        super().__init__(module, device_ids=device_ids, find_unused_parameters=find_unused_parameters)


@MODEL_WRAPPERS.register_module()
class CLITestOther(nn.Module):
    """A wrapper that is not PyTorch's."""


MISSING = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
DEFAULT = dict(MISSING, type='SARDistributedDataParallel')


@pytest.mark.parametrize(
    'given, expected',
    [
        (dict(), dict(DEFAULT, find_unused_parameters=False)),
        (dict(find_unused_parameters=True), dict(DEFAULT, find_unused_parameters=True)),
        (dict(model_wrapper_cfg=dict(find_unused_parameters=True)), dict(MISSING, find_unused_parameters=True)),
        (
            dict(model_wrapper_cfg=dict(broadcast_buffers=True, static_graph=True)),
            dict(MISSING, broadcast_buffers=True, static_graph=True),
        ),
        (
            dict(model_wrapper_cfg=dict(type=MMSeparateDistributedDataParallel, find_unused_parameters=True)),
            dict(type=MMSeparateDistributedDataParallel, find_unused_parameters=True, device_ids=None),
        ),
        (dict(model_wrapper_cfg=dict(type='CLITestParallel')), dict(type='CLITestParallel', device_ids=None)),
        (dict(model_wrapper_cfg=dict(type='CLITestOther', option=3)), dict(type='CLITestOther', option=3)),
    ],
    ids=str,
)
def test_model_wrapper__fills_in_what_is_missing_on_a_cpu(given, expected, monkeypatch):
    monkeypatch.setattr(launchers, 'get_device', lambda: 'cpu')
    assert model_wrapper(Config(given)) == expected


def test_model_wrapper__of_a_gpu_is_that_of_the_config_or_the_default(monkeypatch):
    monkeypatch.setattr(launchers, 'get_device', lambda: 'cuda')
    own = dict(static_graph=True)
    assert model_wrapper(Config(dict(model_wrapper_cfg=own))) == own
    default = model_wrapper(Config(dict(find_unused_parameters=True)))
    assert default == dict(type='SARDistributedDataParallel', find_unused_parameters=True, broadcast_buffers=False)


@pytest.mark.slow
def test_prepare_launcher__wraps_the_model_as_the_config_says(run_python, tmp_path):
    script = """
import os
os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0')
os.environ.update(CUDA_VISIBLE_DEVICES='')
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS, MODELS
from mmengine.runner import Runner
from sar_mm.cli.launchers import leave_process_group, prepare_launcher

@MODEL_WRAPPERS.register_module()
class CLITestParallel(MMDistributedDataParallel):
    def __init__(self, module, device_ids, find_unused_parameters=False):
        super().__init__(module, device_ids=device_ids, find_unused_parameters=find_unused_parameters)

@MODELS.register_module()
class CLITestModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.layer(inputs).mean())

cfg = dict(model=dict(type='CLITestModel'), launcher='pytorch', work_dir=WORK_DIR)
cfg = Config(dict(cfg, model_wrapper_cfg=dict(type=WRAPPER, find_unused_parameters=True)))
prepare_launcher(cfg)
runner = Runner.from_cfg(cfg)
print(type(runner.model).__name__, runner.model.find_unused_parameters)
leave_process_group()
"""
    names = 'MMDistributedDataParallel', 'CLITestParallel'
    scripts = [f'WORK_DIR, WRAPPER = {str(tmp_path)!r}, {name!r}\n{script}' for name in names]
    assert [printed[-1] for printed in run_python(*scripts)] == [f'{name} True' for name in names]
