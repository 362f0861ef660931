import json
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import VISBACKENDS, DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from monitored import CLASSES, Board, C, Head, K, Model, Points, Recorder, one_head
from torch import nn
from torch.profiler import ProfilerActivity, profile

from sar_mm.checks import UsageError
from sar_mm.engine.hooks import AnchorMonitorHook, anchor_monitor
from sar_mm.engine.hooks.anchor_monitor import anchor_heads, class_names, scalar_backends
from sar_mm.models import SemanticAnchorHead


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    Board.written.clear()
    counter = iter(range(100))

    def train(model, steps, interval=2, window=3, by_epoch=False, monitor=None, optim=None, name='run', **options):
        recorder = Recorder()
        sampler = dict(type=DefaultSampler if by_epoch else InfiniteSampler, shuffle=False)
        loop = dict(by_epoch=True, max_epochs=steps // 4) if by_epoch else dict(by_epoch=False, max_iters=steps)
        runner = Runner(
            model=model,
            work_dir=str(tmp_path / name),
            train_dataloader=dict(dataset=Points(), batch_size=2, sampler=sampler),
            train_cfg=loop,
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01), **(optim or {})),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=interval),
                checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=by_epoch),
            ),
            log_processor=dict(by_epoch=by_epoch, window_size=window),
            custom_hooks=[recorder, dict(type='AnchorMonitorHook', **(monitor or {}))],
            visualizer=dict(
                type='Visualizer',
                vis_backends=[
                    dict(type='LocalVisBackend'),
                    dict(type=Board, name='mine', save_dir=str(tmp_path)),
                ],
            ),
            default_scope='mmengine',
            experiment_name=f'monitor{next(counter)}{tmp_path.name}',
            randomness=dict(seed=0),
            **options,
        )
        runner.train()
        (file,) = Path(runner.log_dir).glob('vis_data/scalars.json')
        runner.lines = [json.loads(line) for line in file.read_text().splitlines()]
        (log,) = Path(runner.log_dir).glob('*.log')
        runner.text = log.read_text()
        runner.recorded = recorder.outputs
        return runner

    return train


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize('optim', [None, dict(accumulative_counts=2)], ids=['', 'accumulated'])
@pytest.mark.parametrize(
    'names, unsup, task',
    [
        (['decode', 'aux'], False, ['decode.loss', 'aux.loss']),
        (['decode'], True, ['decode.loss', 'loss_unsup']),
        ([''], False, ['loss']),
        ([''], True, ['loss', 'loss_unsup']),
    ],
    ids=str,
)
def test_task__is_the_sum_of_the_losses_without_those_of_the_anchors(names, unsup, task, optim, train):
    options = dict(loss=dict(separation_weight=1.0))
    runner = train(Model({name: Head([1] * 6, **options) for name in names}, unsup), 6, optim=optim)
    assert [line['step'] for line in runner.lines] == [2, 4, 6]
    for line in runner.lines:
        steps = runner.recorded[max(line['step'] - 3, 0) : line['step']]
        assert line['task'] == pytest.approx(mean([sum(step[name] for name in task) for step in steps]), rel=1e-5)
        if '' not in names:  # there `loss` is the sum of all
            anchors = [name for name in steps[0] if 'loss_' in name and name not in task]
            assert len(anchors) == 3 * len(names)
            whole = line['task'] + mean([sum(step[name] for name in anchors) for step in steps])
            assert line['loss'] == pytest.approx(whole, rel=1e-5)


def test_gate__is_its_share_since_the_last_line(train):
    is_open = [1, 0, 0, 0, 1, 1, 0, 1]
    runner = train(Model({'decode': Head(is_open), 'aux': Head([0] * 8)}), 8, interval=4)
    assert [line['decode.anchor_gate'] for line in runner.lines] == [0.25, 0.75]
    assert [line['aux.anchor_gate'] for line in runner.lines] == [0, 0]
    assert 'decode.anchor_gate: 0.7500' in runner.text


def test_gate__of_epochs_shorter_than_the_interval(train):
    runner = train(one_head([1, 0, 0, 0, 1, 1, 1, 0]), 8, interval=50, by_epoch=True)
    assert [line['anchor_gate'] for line in runner.lines] == [0.25, 0.75]


def test_gate__what_the_config_says_to_log_stays(train):
    own = [
        dict(data_src='anchor_gate', method_name='max', window_size=4),
        dict(data_src='loss', method_name='min', window_size=4),
    ]
    runner = Runner.build_log_processor(None, dict(by_epoch=False, custom_cfg=own))
    assert runner.custom_cfg == own
    monitor = AnchorMonitorHook()
    monitor._average(type('Some', (), dict(log_processor=runner)), ['anchor_gate', 'aux.anchor_gate'], 7)
    assert runner.custom_cfg == [*own, dict(data_src='aux.anchor_gate', method_name='mean', window_size=7)]
    assert len(own) == 2


def warnings_in(text):
    return [line for line in text.splitlines() if 'stayed shut' in line]


def test_warning__names_the_classes_after_a_tenth_and_a_third(train):
    model = Model({'decode': Head([0] * 30), 'aux': Head([1] * 30)})
    runner = train(model, 30, monitor=dict(warn_after=(0.4, 0.8)))
    first, second = warnings_in(runner.text)
    assert 'After 12 of 30 iterations, the gate of heads.decode stayed shut' in first and 'After 24 of 30' in second
    assert '0.8, but 1 of 3 are not: dog (0.00, another class has more). What to do:' in first
    assert runner.text.count('set anchor_head.gate_per_class=True: the other 2 classes') == 2


@pytest.mark.parametrize(
    'is_open, steps, monitor, expected',
    [
        ([0] * 40, 40, {}, [10, 14]),  # 4 and 13.3 would be too early for the first
        ([0] * 9, 9, {}, []),
        ([0] * 40, 40, dict(warn_after=[]), []),
        ([0, 1] * 20, 40, {}, []),  # open now and then
        ([1] * 2 + [0] * 38, 40, {}, [14]),  # shut since then
        ([0] * 11 + [1] * 29, 40, {}, [10]),
    ],
)
def test_warning__only_of_a_gate_that_is_shut_in_all_steps_of_a_tenth(is_open, steps, monitor, expected, train):
    runner = train(one_head(is_open), steps, monitor=monitor)
    assert [int(line.split('After ')[1].split()[0]) for line in warnings_in(runner.text)] == expected


def test_warning__gates_per_class(train):
    runner = train(one_head([0] * 12, gate_per_class=True), 12)
    (first,) = warnings_in(runner.text)
    assert 'the gates of some classes of head stayed shut' in first and 'dog (0.00' in first
    assert 'gate_per_class=True' not in runner.text.split('What to do')[1]


def test_warning__not_of_what_was_shut_in_the_last_step_only(train):
    """Of two heads, that which never opened; of gates per class, none that was open shortly before."""
    model = Model({'decode': Head([0] * 12), 'aux': Head([1] * 11 + [0])})
    (warning,) = warnings_in(train(model, 12, monitor=dict(warn_after=[1.0])).text)
    assert 'heads.decode stayed shut' in warning
    per_class = one_head([1] * 11 + [0], gate_per_class=True)
    assert not warnings_in(train(per_class, 12, monitor=dict(warn_after=[1.0]), name='per_class').text)


def test_resume__repeats_nothing_and_averages_over_the_steps_before(train):
    whole = train(one_head([0] * 10 + [1, 0] * 5), 20, interval=4)
    assert len(warnings_in(whole.text)) == 1
    resumed = one_head([1, 0] * 5)
    path = str(Path(whole.work_dir) / 'iter_10.pth')
    resumed = train(resumed, 20, interval=4, name='resumed', load_from=path, resume=True)
    assert not warnings_in(resumed.text)
    keys = ('step', 'task', 'anchor_gate')
    assert [{key: line[key] for key in keys} for line in resumed.lines] == [
        {key: pytest.approx(line[key], rel=1e-5) for key in keys} for line in whole.lines if line['step'] > 10
    ]


def test_processes__the_main_one_prints(train, monkeypatch):
    monkeypatch.setattr(anchor_monitor, 'is_main_process', lambda: False)
    runner = train(one_head([0] * 12), 12)
    assert not warnings_in(runner.text) and all('anchor_conf/cat' not in scalars for _, scalars in Board.written)


def test_confidence__of_every_class_goes_to_other_backends_than_the_log(train):
    runner = train(one_head([1, 1, 0, 0]), 4)
    found = {step: scalars for step, scalars in Board.written if 'anchor_conf/cat' in scalars}
    high, low = (pytest.approx(value, abs=1e-4) for value in (0.9999, 0.0000))
    assert found == {
        2: {'anchor_conf/cat': high, 'anchor_conf/dog': high, 'anchor_conf/owl': high},
        4: {'anchor_conf/cat': high, 'anchor_conf/dog': low, 'anchor_conf/owl': high},
    }
    assert 'anchor_conf/' not in runner.text and not any('anchor_conf/cat' in line for line in runner.lines)


def test_scalar_backends__those_of_mmengine_but_the_local_one(tmp_path):
    kinds = [VISBACKENDS.get(f'{name}VisBackend') for name in anchor_monitor.BACKENDS]
    assert None not in kinds and len(kinds) == 7
    logs = [LocalVisBackend(str(tmp_path)), type('Lines', (LocalVisBackend,), {})(str(tmp_path))]
    shown = [object.__new__(kind) for kind in kinds]  # built, they would look for their services
    backends = dict(enumerate([*logs, *shown, Board(str(tmp_path))]))
    assert scalar_backends(SimpleNamespace(_vis_backends=backends)) == list(backends.values())[2:]


def test_confidence__of_several_heads_or_of_none(train):
    train(Model({'decode': Head([1] * 2), 'aux': Head([1] * 2)}), 2)
    assert {'anchor_conf/heads.decode/cat', 'anchor_conf/heads.aux/owl'} <= set(Board.written[0][1])
    Board.written.clear()
    train(one_head([1] * 2), 2, monitor=dict(per_class=False))
    assert Board.written and not any('anchor_conf/cat' in scalars for _, scalars in Board.written)


def test_monitor__leaves_models_without_anchors_alone(train):
    model = one_head([1] * 4)
    model.head.anchor_head = None
    model.head.forward = lambda feature, labels: dict(loss=F.cross_entropy(model.head.fc(feature), labels))
    runner = train(model, 4)
    assert set(runner.lines[0]) >= {'loss', 'step'} and 'task' not in runner.lines[0]
    assert runner.log_processor.custom_cfg == [] and not model._forward_hooks


def test_monitor__reads_no_tensor_between_lines(train):
    runner = train(one_head([1] * 5), 5, interval=5)
    (monitor,) = [hook for hook in runner.hooks if isinstance(hook, AnchorMonitorHook)]
    outputs = {name: torch.tensor(value) for name, value in runner.recorded[0].items()}
    for batch_idx, count in ((2, 0), (4, K)):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            monitor.after_train_iter(runner, batch_idx, None, outputs)
        events = [event.name for event in profiler.events()]
        assert bool(events) == bool(count), events  # at a line, tolist()


def test_anchor_heads__the_student_and_not_its_teacher():
    model = nn.ModuleDict()
    model['student'] = one_head([1])
    model['teacher'] = nn.ModuleDict(dict(module=one_head([1])))
    heads = anchor_heads(model)
    assert list(heads) == ['head'] and heads['head'] is model['student'].head.anchor_head
    several = nn.ModuleDict(dict(head=nn.Module()))
    several['head'].anchor_head = nn.ModuleDict({name: SemanticAnchorHead(K, C) for name in ('conv', 'trans')})
    assert list(anchor_heads(several)) == ['head.conv', 'head.trans']
    assert anchor_heads(nn.Linear(2, 2)) == anchor_heads(None) == {}


@pytest.mark.parametrize(
    'classes, expected',
    [(CLASSES, list(CLASSES)), (None, None), (('a', 'b'), None), (('a', 'a', 'b'), None), ('abc', None)],
)
def test_class_names__those_of_the_data_or_numbers(classes, expected):
    assert class_names(SemanticAnchorHead(K, C), classes) == (expected or ['class 0', 'class 1', 'class 2'])


@pytest.mark.parametrize(
    'options', [dict(warn_after=[0]), dict(warn_after=0.1), dict(warn_after=[2]), dict(per_class=1)]
)
def test_monitor__bad_options(options):
    (name,) = options
    with pytest.raises(UsageError, match=f'Expected argument `{name}`'):
        AnchorMonitorHook(**options)
