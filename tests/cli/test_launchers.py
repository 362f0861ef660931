import re
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch.distributed
from mmengine.config import Config, ConfigDict
from mmengine.model import MMDistributedDataParallel, MMSeparateDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS, MODELS, DefaultScope
from torch import nn

import sar_mm  # noqa: F401
from sar_mm.engine.cli import UsageError, _meet, check_checkpoint, usage_errors, wrapper_on_cpu

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


@pytest.mark.parametrize('rank, start', [('0', 'error: '), ('3', 'error of rank 3: ')])
def test_usage_errors__say_which_process_has_one(rank, start, monkeypatch, capsys):
    monkeypatch.setenv('RANK', rank)
    with pytest.raises(SystemExit) as stopped, usage_errors():
        raise UsageError('there is no image on this node')
    assert stopped.value.code == 2 and capsys.readouterr().err == f'\n{start}there is no image on this node\n'


@MODEL_WRAPPERS.register_module()
class CLITestParallel(MMDistributedDataParallel):
    """A user's own wrapper, which takes fewer options."""

    def __init__(self, module, device_ids, find_unused_parameters=False):
        super().__init__(module, device_ids=device_ids, find_unused_parameters=find_unused_parameters)


@MODEL_WRAPPERS.register_module()
class CLITestOther(nn.Module):
    """A wrapper that is not PyTorch's."""


MISSING = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)


@pytest.mark.parametrize(
    'given, expected',
    [
        (dict(), dict(MISSING, find_unused_parameters=False)),
        (dict(find_unused_parameters=True), dict(MISSING, find_unused_parameters=True)),
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
def test_wrapper_on_cpu__fills_in_what_is_missing(given, expected):
    assert wrapper_on_cpu(Config(given)) == expected


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
from sar_mm.engine.cli import leave_process_group, prepare_launcher

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


def classifier():
    return dict(
        type='ImageClassifier',
        backbone=dict(type='CIFARResNet', depth=8, base_channels=4),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='SARLinearClsHead', num_classes=3, in_channels=16, loss=dict(type='SeesawLoss', num_classes=3)),
    )


def segmentor():
    fcn = dict(type='SARFCNHead', channels=4, num_convs=1, num_classes=3, norm_cfg=dict(type='BN'))
    backbone = dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=dict(type='BN'))
    return dict(
        type='EncoderDecoder',
        backbone=backbone,
        decode_head=dict(fcn, in_channels=32, in_index=3),
        auxiliary_head=[dict(fcn, in_channels=16, in_index=2), dict(fcn, in_channels=8, in_index=1)],
        train_cfg=dict(),
        test_cfg=ConfigDict(mode='whole'),
    )


def build(kind, semi=None, tta=False, seed=0):
    toolbox = 'mmpretrain' if kind == 'cls' else 'mmseg'
    pytest.importorskip(f'{toolbox}.models')
    model = classifier() if kind == 'cls' else segmentor()
    if semi is not None:
        name = 'classifier' if kind == 'cls' else 'segmentor'
        model = {'type': f'Semi{name.title()}', name: model, 'semi': semi}
    if tta:
        model = dict(type='AverageClsScoreTTA' if kind == 'cls' else 'SegTTAModel', module=model)
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(toolbox):
        return MODELS.build(model)


TRAINING = (r'(head|decode_head|auxiliary_head\.\d)\.anchor_head\.', r'auxiliary_head\.', r'head\.loss_module\.')
TEACHER = dict(momentum=0.1)
CASES = {
    'plain': (None, False, '', None),
    'tta': (None, True, '', None),
    'self-labelled': (dict(distribution_alignment=dict(momentum=0.9)), False, 'student.', None),
    'teacher': (dict(teacher=TEACHER, predict_with='teacher'), False, 'teacher.module.', None),
    'student': (dict(teacher=TEACHER, predict_with='student'), False, 'student.', None),
    'both': (dict(teacher=TEACHER), False, r'(student|teacher\.module)\.', 'sar_mm.StudentTeacherValLoop'),
}


@pytest.mark.parametrize('kind', ['cls', 'seg'])
@pytest.mark.parametrize('case', CASES)
def test_check_checkpoint__what_predictions_do_without_may_be_missing(kind, case, tmp_path):
    semi, tta, part, loop = CASES[case]
    path = str(tmp_path / 'trained.pth')
    trained = build(kind, semi)
    weights = trained.state_dict()
    runner = SimpleNamespace(model=build(kind, semi, tta, seed=1), cfg=Config(dict(test_cfg=dict(type=loop))))
    needed = {name for name in weights if re.match(part, name)}
    needed -= {name for name in needed for training in TRAINING if re.match(f'(?:{part}){training}', name)}
    assert 0 < len(needed) < len(weights)

    torch.save(dict(state_dict={name: weights[name] for name in needed}), path)
    check_checkpoint(runner, path, 'config', to_resume=False)  # it loads it, too
    with pytest.raises(UsageError, match='weights are missing in the checkpoint'):
        check_checkpoint(runner, path, 'config', to_resume=True)
    broken = {name: weights[name] if name in needed else torch.full((7,), float('nan')) for name in weights}
    torch.save(broken, path)  # nor do the shapes of what is not needed matter
    check_checkpoint(runner, path, 'config', to_resume=False)
    model = (runner.model.module if tta else runner.model).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for name in sorted(set(weights) - needed):  # the real test: what they are does not show
            owner, entry = model.get_submodule(name.rpartition('.')[0]), name.rpartition('.')[2]
            getattr(owner, entry).fill_(3 if not getattr(owner, entry).is_floating_point() else float('nan'))
        assert torch.equal(forward(model, images), forward(trained.eval(), images))

    names = sorted(name for name in needed if not name.endswith('num_batches_tracked'))  # which PyTorch fills in
    for name in names if case == 'plain' else names[::9]:
        torch.save({other: weights[other] for other in needed - {name}}, path)
        if case == 'both' and name.startswith('teacher.'):
            check_checkpoint(runner, path, 'config', to_resume=False)  # the student's is taken
            continue
        with pytest.raises(UsageError, match=re.escape(f'1 of its weights are missing in the checkpoint, {name}')):
            check_checkpoint(runner, path, 'config', to_resume=False)


def forward(model, images):
    outputs = model(images)  # a mode in which a semi-supervised model forwards what predicts
    return outputs if isinstance(outputs, torch.Tensor) else torch.cat([each.flatten() for each in outputs])
