import threading
from datetime import timedelta

import pytest
import torch.distributed
from mmengine._strategy import DDPStrategy
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel, MMSeparateDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import FlexibleRunner
from torch import nn

from sar_mm.checks import UsageError
from sar_mm.cli import launchers
from sar_mm.cli.launchers import _meet, model_wrapper, prepare_launcher, set_model_wrapper

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
    cfg = Config(given)
    set_model_wrapper(cfg)
    assert cfg.model_wrapper_cfg == expected


def test_model_wrapper__of_a_gpu_is_that_of_the_config_or_the_default(monkeypatch):
    monkeypatch.setattr(launchers, 'get_device', lambda: 'cuda')
    own = dict(static_graph=True)
    assert model_wrapper(Config(dict()), own) == own
    default = model_wrapper(Config(dict(find_unused_parameters=True)), None)
    assert default == dict(type='SARDistributedDataParallel', find_unused_parameters=True, broadcast_buffers=False)


OWN = dict(type='CLITestParallel', device_ids=None)
PLAIN = dict(DEFAULT, find_unused_parameters=False)


@pytest.mark.parametrize(
    'given, expected',
    [
        (dict(), dict(type='DDPStrategy', model_wrapper=PLAIN)),
        (dict(strategy=dict(type='DDPStrategy', sync_bn='torch')), 'filled'),
        (dict(strategy=dict(type=DDPStrategy)), 'filled'),
        (dict(strategy=dict(type='DDPStrategy'), model_wrapper_cfg=OWN), dict(type='DDPStrategy', model_wrapper=OWN)),
        (
            dict(strategy=dict(type='DDPStrategy', model_wrapper=dict(type='CLITestParallel'))),
            dict(type='DDPStrategy', model_wrapper=OWN),
        ),
        *((dict(strategy=dict(type=f'{name}Strategy', a=1)), 'kept') for name in ('FSDP', 'DeepSpeed', 'Unknown')),
        (dict(strategy=dict(type=type('Own', (DDPStrategy,), {}))), 'kept'),
    ],
    ids=str,
)
@pytest.mark.parametrize('runner', ['FlexibleRunner', FlexibleRunner])
def test_set_model_wrapper__of_a_flexible_runner_is_that_of_its_strategy(given, expected, runner, monkeypatch):
    monkeypatch.setattr(launchers, 'get_device', lambda: 'cpu')
    cfg = Config(dict(given, runner_type=runner))
    set_model_wrapper(cfg)
    strategy = given.get('strategy')
    expected = {'filled': dict(strategy or {}, model_wrapper=PLAIN), 'kept': strategy}.get(str(expected), expected)
    assert cfg.strategy == expected
    assert cfg.get('model_wrapper_cfg') == given.get('model_wrapper_cfg')


@pytest.mark.parametrize('strategy', [None, dict(type='mmengine._strategy.DDPStrategy')])
def test_prepare_launcher__a_config_of_several_processes_is_one_of_a_single_process(strategy, tmp_path, monkeypatch):
    monkeypatch.setattr(launchers, 'get_device', lambda: 'cpu')
    cfg = Config(dict(runner_type='FlexibleRunner', **({} if strategy is None else dict(strategy=strategy))))
    set_model_wrapper(cfg)
    cfg.dump(tmp_path / 'dumped.py')
    cfg = Config.fromfile(tmp_path / 'dumped.py')
    assert cfg.strategy.model_wrapper.type == 'SARDistributedDataParallel'
    cfg.launcher = 'none'
    prepare_launcher(cfg)
    assert 'strategy' not in cfg
    own = dict(type='DDPStrategy', model_wrapper=dict(type='MMDistributedDataParallel'))
    cfg = Config(dict(runner_type='FlexibleRunner', strategy=own, launcher='none'))
    prepare_launcher(cfg)
    assert cfg.strategy == own


@pytest.mark.parametrize('name', ['RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'])
def test_warn_of_strategy__in_one_process(name, monkeypatch, capsys):
    pytest.importorskip('mmpretrain.models')
    monkeypatch.delenv('RANK', raising=False)
    model = dict(type='ImageClassifier', head=dict(type='SARLinearClsHead'))
    cfg = Config(dict(model=model, default_scope='mmpretrain', strategy=dict(type='DeepSpeedStrategy')))
    cfg.runner_type = 'FlexibleRunner'
    for rank, number in (('0', 1), ('3', 0)):
        monkeypatch.setenv(name, rank)
        launchers.warn_of_strategy(cfg)
        assert capsys.readouterr().err.count('DeepSpeedStrategy') == number


@pytest.mark.parametrize(
    'runner, strategy, expected',
    [
        ('FlexibleRunner', dict(type='DDPStrategy'), ''),
        ('FlexibleRunner', dict(type='FSDPStrategy', model_wrapper=dict(mixed_precision=dict(param_dtype='half'))), ''),
        (
            'FlexibleRunner',
            dict(type='FSDPStrategy', model_wrapper=dict(mixed_precision=dict(buffer_dtype='half'))),
            'half',
        ),
        ('FlexibleRunner', dict(type='DeepSpeedStrategy'), 'DeepSpeedStrategy'),
        ('FlexibleRunner', dict(type='mmengine.ColossalAIStrategy'), 'ColossalAIStrategy'),
        (None, dict(type='DeepSpeedStrategy'), ''),  # which nothing reads
        ('FlexibleRunner', None, ''),
    ],
    ids=str,
)
def test_warn_of_strategy(runner, strategy, expected, monkeypatch, capsys):
    pytest.importorskip('mmpretrain.models')
    monkeypatch.delenv('RANK', raising=False)
    model = dict(type='ImageClassifier', head=dict(type='SARLinearClsHead'))
    cfg = Config(dict(model=model, default_scope='mmpretrain', strategy=strategy, launcher='none'))
    if runner is not None:
        cfg.runner_type = runner
    prepare_launcher(cfg)
    printed = capsys.readouterr().err
    assert bool(printed) == bool(expected) and expected in printed and printed.count('warning') == bool(expected)
    cfg.model.head.type = 'LinearClsHead'
    prepare_launcher(cfg)
    assert capsys.readouterr().err == ''


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
from mmengine.runner import FlexibleRunner, Runner
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

cfg = dict(model=dict(type='CLITestModel'), launcher='pytorch', work_dir=WORK_DIR, find_unused_parameters=True)
cfg = Config(dict(cfg, env_cfg=dict(dist_cfg=dict(backend='gloo')), **OPTIONS))
prepare_launcher(cfg)
if 'runner_type' in cfg:
    strategy = FlexibleRunner.from_cfg(cfg).strategy
    strategy.prepare(cfg.model)
    model = strategy.model
else:
    model = Runner.from_cfg(cfg).model
print(type(model).__name__, model.find_unused_parameters)
leave_process_group()
"""
    names = 'MMDistributedDataParallel', 'CLITestParallel'
    cases = [(name, dict(model_wrapper_cfg=dict(type=name, find_unused_parameters=True))) for name in names]
    cases.append(('SARDistributedDataParallel', dict(runner_type='FlexibleRunner')))
    scripts = [f'WORK_DIR, OPTIONS = {str(tmp_path)!r}, {options!r}\n{script}' for _, options in cases]
    assert [printed[-1] for printed in run_python(*scripts)] == [f'{name} True' for name, _ in cases]
