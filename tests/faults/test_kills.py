"""Runs killed with SIGKILL at random moments and resumed, compared with one that nobody killed"""

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
import torch
from bitwise import cut_off, differences, steps
from kill_tasks import ITERATIONS, ROOT, TASKS
from kills import DELAYS, Training, plan
from mmengine.logging import HistoryBuffer

# Of the report: 20. In all, each run then takes minutes.
COUNT = int(os.environ.get('SAR_KILLS', '3'))
TOOLBOX = dict(segmentation='mmseg', classification='mmpretrain', semi='mmpretrain')
# Task and processes, and the workers of each data loader: none, or two that live as long as the training.
RUNS = {
    ('segmentation', 1): 2,
    ('segmentation', 2): 0,
    ('classification', 1): 0,
    ('classification', 2): 2,
    ('semi', 1): 2,
    ('semi', 2): 0,
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('digits')
    tool = ROOT / 'tools' / 'dataset_converters' / 'digits.py'
    subprocess.run([sys.executable, str(tool), '--out', str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope='module')
def make_training(data, tmp_path_factory):
    """Prepare a training in a new folder."""
    made = []

    def make(task, processes, restarts=0):
        if sys.platform != 'linux':
            pytest.skip('reads /proc to find every process')
        pytest.importorskip(f'{TOOLBOX[task]}.models')
        folder = tmp_path_factory.mktemp(f'{task}{processes}')
        (folder / 'data').mkdir()
        (folder / 'data' / 'digits').symlink_to(data)
        made.append(Training(folder, task, processes, RUNS[task, processes], restarts))
        return made[-1]

    yield make
    for training in made:
        training.kill()


@pytest.fixture(scope='module')
def uninterrupted(make_training):
    """Trainings that nobody killed, each made once."""
    made = {}

    def train(task, processes):
        if (task, processes) not in made:
            made[task, processes] = make_training(task, processes)
            made[task, processes].start()
            made[task, processes].join()
        return made[task, processes]

    return train


def assert_equal(training, expected):
    """The same checkpoints, and in every step of every process the same data, random states, losses and scores."""
    checkpoint, expected_checkpoint = training.checkpoint(), expected.checkpoint()
    assert {'state_dict', 'optimizer', 'param_schedulers', 'message_hub', 'meta'} <= checkpoint.keys()
    assert any(name.endswith('anchor_head.semantic_anchors') for name in checkpoint['state_dict'])
    assert any(name.endswith('anchor_head.initialized') for name in checkpoint['state_dict'])
    assert differences(checkpoint, expected_checkpoint) == []
    (name, best), (expected_name, expected_best) = training.best_checkpoint(), expected.best_checkpoint()
    assert name == expected_name
    assert differences(best['state_dict'], expected_best['state_dict']) == []
    for rank in range(expected.processes):
        records = training.records(rank)
        made, expected_steps = steps(records), steps(expected.records(rank))
        assert expected_steps.keys() - made.keys() <= cut_off(records)
        assert made.keys() <= expected_steps.keys()
        assert [key for key in made if made[key] != expected_steps[key]] == []


def test_differences__are_found_to_the_last_bit():
    def checkpoint():
        history = HistoryBuffer([0.5, 0.25], [1, 1])
        meta = dict(iter=3, time='now', cfg='work_dir = 1')
        return dict(
            meta=meta, weights=torch.ones(3), momenta=[torch.zeros(2)], best='a/best.pth', log=dict(loss=history)
        )

    one, other = checkpoint(), checkpoint()
    other['meta'].update(time='later', cfg='work_dir = 2')
    other['best'] = 'b/best.pth'
    assert differences(one, other) == []
    other['weights'][1] += torch.finfo(torch.float32).eps
    other['momenta'][0][0] = -0.0
    other['log']['loss'].update(0.125)
    other['meta'].update(iter=4, seed=1)
    places = [
        '/log/loss/_log_history',
        '/log/loss/_count_history',
        '/meta/seed',
        '/meta/iter',
        '/momenta/0',
        '/weights',
    ]
    assert sorted(differences(one, other)) == sorted(places)


def test_cut_off__is_a_step_that_was_saved_but_not_recorded():
    def made(*events):
        return [dict(event=event, iter=number) for event, number in events]

    step = [('training', 4), ('saving', 4)]
    for event in ('training', 'validating'):
        assert cut_off(made(*step, ('started', 0), (event, 5))) == {('trained', 4)}
    assert cut_off(made(('training', 4), ('started', 0), ('training', 5))) == {('trained', 4)}  # not the main process
    assert cut_off(made(*step, ('trained', 4), ('training', 5))) == set()
    assert cut_off(made(*step, ('started', 0), ('training', 4))) == set()  # the checkpoint had no name yet


@pytest.mark.slow
@pytest.mark.parametrize(
    ('task', 'processes'),
    [pytest.param(*run, marks=[pytest.mark.ci] if run == ('semi', 1) else []) for run in RUNS],
)
def test_kills__resumed_run_ends_as_the_uninterrupted_one(
    task, processes, make_training, uninterrupted, record_property
):
    loader = f'{RUNS[task, processes]} workers' if RUNS[task, processes] else 'no workers'
    record_property('fault', f'{COUNT} times SIGKILL: {task}, {processes} process{"es" * (processes > 1)}, {loader}')
    record_property('kills', COUNT)
    expected = uninterrupted(task, processes)
    outputs = [record['outputs'] for record in expected.records() if 'outputs' in record]
    gates = [value for output in outputs for name, value in output.items() if name.endswith('anchor_gate')]
    assert len(gates) == ITERATIONS and min(gates) < max(gates)  # gates of classes open on the way, and S moves

    training = make_training(task, processes)
    log, half_written = [], set()
    for kill in plan(COUNT, seed=len(task) + processes):
        training.start()
        training.wait_for(kill)
        training.kill()
        log.append(training.doing())
        half_written |= training.half_written()
        print(f'kill {len(log)} of {COUNT}: {log[-1][0]} at iteration {log[-1][1]}, meant for {kill}')
    training.start()
    training.join()
    assert_equal(training, expected)
    assert not training.half_written()  # each was written over
    counts = Counter(event for event, _ in log)
    doing = ', '.join(f'{counts[event]} {event}' for event in [*DELAYS, 'between two steps'] if counts[event])
    left = f'{len(half_written)} unfinished checkpoints left'
    record_property('outcome', f'bit-identical to the uninterrupted run; killed {doing}; {left}')


@pytest.mark.slow
@pytest.mark.parametrize(
    'task', [pytest.param(task, marks=[pytest.mark.ci] if task == 'segmentation' else []) for task in TASKS]
)
def test_kills__one_of_two_processes_under_torchrun(task, make_training, uninterrupted, record_property):
    restarts = 3
    record_property(
        'fault', f'{restarts} times SIGKILL of one of two processes under torchrun: {task}, MAX_RESTARTS={restarts}'
    )
    record_property('kills', restarts)
    expected = uninterrupted(task, 2)
    training = make_training(task, 2, restarts)
    training.start()
    for number, kill in enumerate(plan(restarts, seed=len(task))):
        rank = number % 2
        training.wait_for_start(number + 1)
        # The other one validates, but does not save.
        kill = kill if rank == 0 or kill.event != 'saving' else kill._replace(event='training')
        os.kill(training.wait_for(kill, rank), signal.SIGKILL)
    training.join()
    assert [training.starts(rank) for rank in range(2)] == [restarts + 1] * 2
    assert_equal(training, expected)
    record_property('outcome', f'torchrun started both again {restarts} times; bit-identical to the uninterrupted run')
