import argparse
import os
import shlex
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from summarized import Gate

from sar_mm.cli import summary as summary_module
from sar_mm.cli.summary import Summary, near
from sar_mm.models import SemanticAnchorHead


def test_summary__of_a_whole_training(train):
    how, done, rows = train()
    assert (how, done) == ('has ended', '4 of 4 iterations')
    assert rows['scores'] == 'acc 88, mIoU 1.5 (last validation)'
    assert rows['test'] == 'python tools/test.py my.py work_dirs/my/iter_4.pth'
    assert Path(rows['log']).is_file() and set(rows) == {'scores', 'log', 'test'}


def test_summary__the_best_checkpoint(train):
    _, _, rows = train(best='acc')
    assert rows['best'] == 'acc 89, work_dirs/my/best_acc_iter_2.pth' and 'scores' not in rows
    assert rows['test'].endswith('my.py work_dirs/my/best_acc_iter_2.pth')


def test_summary__several_best_checkpoints(train):
    _, _, rows = train(best=['acc', 'mIoU'])
    assert rows['best'] == 'mIoU 1.5, work_dirs/my/best_mIoU_iter_2.pth'  # the last of two lines
    assert rows['test'].endswith('best_acc_iter_2.pth')


def test_summary__epochs(train):
    how, done, rows = train(steps=3, by_epoch=True, checkpoints=1)
    assert (how, done) == ('has ended', '3 of 3 epochs') and rows['test'].endswith('epoch_3.pth')


@pytest.mark.parametrize('error', [KeyboardInterrupt(), RuntimeError('out of memory')], ids=['ctrl-c', 'error'])
def test_summary__of_a_training_that_was_stopped(error, train):
    how, done, rows = train(stop=(3, error), work_dir='work_dirs/my', amp=True, cfg_options=['a=1', 'b=[1, 2]'])
    assert (how, done) == ('was stopped', '2 of 4 iterations')
    options = ['--work-dir', 'work_dirs/my', '--cfg-options', 'a=1', 'b=[1, 2]']
    resume = ['python', 'tools/train.py', 'my.py', '--amp', *options, '--resume']
    assert shlex.split(rows['resume']) == resume
    assert shlex.split(rows['test']) == ['python', 'tools/test.py', 'my.py', 'work_dirs/my/iter_2.pth', *options]


@pytest.mark.parametrize('at, done', [(2, 1), (1, 0), (0, 0)], ids=['second step', 'first step', 'no step'])
def test_summary__before_the_first_checkpoint(at, done, train):
    how, amount, rows = train(stop=(at, RuntimeError()), validate=False)
    assert (how, amount) == ('was stopped', f'{done} of 4 iterations, before its first checkpoint')
    assert set(rows) == {'log'}


def test_summary__without_a_log(train):
    assert train(stop=(1, RuntimeError()), log=False)[2] == {}


def test_summary__of_a_loop_that_was_not_built(tmp_path, monkeypatch):
    """As a FlexibleRunner's, which is built late: what is done is not known."""
    lines = []
    hub = SimpleNamespace(log_scalars={}, runtime_info={})
    runner = SimpleNamespace(_train_loop=dict(max_iters=4), message_hub=hub, hooks=[], work_dir=str(tmp_path))
    runner.logger, runner.register_hook = SimpleNamespace(info=lines.append), lambda hook: None
    runner.log_dir, runner.timestamp = str(tmp_path), 'none'
    Summary(runner, argparse.Namespace()).show(failed=True)
    assert lines == ['The training was stopped: 0:00:00, before its first checkpoint']


def test_summary__a_checkpoint_of_an_earlier_run_in_the_folder_is_not_named(train):
    train()
    past = time.time() - 60
    os.utime('work_dirs/my/last_checkpoint', (past, past))
    assert set(train(stop=(1, RuntimeError()))[2]) == {'log'}
    assert train(stop=(3, RuntimeError()))[2]['test'].endswith('iter_2.pth')


@pytest.mark.parametrize('by_epoch, unit', [(False, 'iteration'), (True, 'epoch')])
def test_summary__of_a_resumed_training_says_since_when_the_time_counts(by_epoch, unit, train):
    train(steps=2, by_epoch=by_epoch, checkpoints=1)
    how, done, _ = train(steps=4, by_epoch=by_epoch, checkpoints=1, resume='auto')
    assert (how, done) == ('has ended', f'4 of 4 {unit}s since it was resumed at {unit} 2')


@pytest.mark.parametrize('at', [0, 3])
def test_summary__of_a_resumed_training_that_is_stopped_early(at, train, tmp_path):
    train(steps=2)
    _, _, rows = train(stop=(at, RuntimeError()), resume='auto')
    assert rows['test'].endswith('iter_2.pth') and rows['resume'].endswith('--resume')
    elsewhere = tmp_path / 'elsewhere'
    Path('work_dirs/my').rename(elsewhere)
    _, _, rows = train(stop=(at, RuntimeError()), resume=True, load_from=str(elsewhere / 'iter_2.pth'))
    assert rows['resume'].endswith('--resume elsewhere/iter_2.pth')


PAGE = Path(__file__).parents[2] / 'docs' / 'reading_the_log.md'
WHY = 'no feature was pulled to its anchor; why: "The warning of a shut gate" in docs/reading_the_log.md'


@pytest.mark.parametrize(
    'is_open, stop, expected',
    [
        ({'': [0.0] * 4}, None, f'never open: {WHY}'),
        ({'': [0.0] * 4}, (3, RuntimeError()), f'not yet open: {WHY}'),
        ({'decode.': [0.0] * 4, 'aux.': [0.0] * 4}, None, f'never open in decode, aux: {WHY}'),
        ({'decode.': [0.0, 1.0, 0.0, 0.0], 'aux.': [0.0] * 4}, None, f'never open in aux: {WHY}'),
        ({'': [0.0, 0.1, 0.0, 0.0]}, None, None),  # of gates per class, one was open
    ],
)
def test_summary__a_gate_that_was_never_open(is_open, stop, expected, train):
    _, _, rows = train(model=Gate(**is_open), stop=stop)
    assert rows.get('gate') == expected


@pytest.mark.parametrize('pull_weight', [0.0, 0.1])
def test_summary__a_shut_gate_matters_where_there_is_a_pull(pull_weight, train):
    model = Gate(**{'': [0.0] * 4})
    model.anchor_head = SemanticAnchorHead(2, 2, loss=dict(pull_weight=pull_weight)).requires_grad_(False)
    assert ('gate' in train(model=model)[2]) == bool(pull_weight)


def test_summary__a_gate_that_was_open_before_the_resume(train):
    train(model=Gate(**{'': [0.0, 1.0]}), steps=2)
    _, _, rows = train(model=Gate(**{'': [0.0] * 2}), resume='auto')
    assert 'gate' not in rows
    assert '## The warning of a shut gate\n' in PAGE.read_text(encoding='utf-8')


@pytest.mark.parametrize(
    'launcher, resume, test',
    [
        ('pytorch', 'tools/dist_train.sh my.py 3 --resume', 'tools/dist_test.sh my.py work_dirs/my/iter_2.pth 3'),
        (
            'slurm',
            'GPUS=3 tools/slurm_train.sh PARTITION JOB my.py --resume',
            'GPUS=3 tools/slurm_test.sh PARTITION JOB my.py work_dirs/my/iter_2.pth',
        ),
    ],
)
def test_summary__other_launchers(launcher, resume, test, train, monkeypatch):
    monkeypatch.setattr(summary_module, 'get_world_size', lambda: 3)
    _, _, rows = train(stop=(3, RuntimeError()), launcher=launcher)
    assert (rows['resume'], rows['test']) == (resume, test)


def test_summary__the_main_process_shows_it(train, monkeypatch):
    monkeypatch.setattr(summary_module, 'is_main_process', lambda: False)
    assert train() == (None, None, {})


SAR = dict(default_scope='mmpretrain', model=dict(head=dict(type='SARLinearClsHead')))
COMPARE = 'python tools/analysis_tools/compare_features.py'


def test_summary__comparison_with_the_twin_of_a_config(train, tmp_path):
    pytest.importorskip('mmpretrain.models')
    for name in ('a.py', 'sar_a.py'):
        (tmp_path / name).write_text('')
    options = ['randomness.seed=1', 'model.head.anchor_head.momentum=0.9']
    _, _, rows = train(cfg=SAR, config='sar_a.py', cfg_options=options)
    assert rows['stock'] == 'python tools/train.py a.py --cfg-options randomness.seed=1'
    files = 'a.py STOCK_CHECKPOINT sar_a.py work_dirs/my/iter_4.pth'
    assert rows['compare'] == f'{COMPARE} {files} --cfg-options randomness.seed=1'
    _, _, rows = train(cfg=SAR, config='sar_a.py', work_dir='work_dirs/my')
    assert rows['stock'] == 'python tools/train.py a.py --work-dir work_dirs/my_stock'
    assert 'stock' not in train(cfg=SAR, config='sar_a.py', stop=(3, RuntimeError()))[2]


def test_summary__comparison_with_the_stock_heads(train):
    pytest.importorskip('mmpretrain.models')
    _, _, rows = train(cfg=SAR, cfg_options=['a=1'])
    options = '--work-dir work_dirs/my_stock --cfg-options a=1 model.head.type=LinearClsHead'
    assert rows['stock'] == f'python tools/train.py my.py {options}'
    assert rows['compare'] == f'{COMPARE} my.py STOCK_CHECKPOINT my.py work_dirs/my/iter_4.pth --cfg-options a=1'


def test_summary__comparison_where_the_stock_config_is_not_known(train):
    pytest.importorskip('mmpretrain.models')
    _, _, rows = train(cfg={**SAR, 'model.head.anchor_head': dict(momentum=0.9)})
    assert rows['stock'].startswith('train the same config without anchors: ')
    assert rows['compare'] == f'{COMPARE} STOCK_CONFIG STOCK_CHECKPOINT my.py work_dirs/my/iter_4.pth'


def test_near():
    assert near(str(Path.cwd() / 'a' / 'b.pth')) == 'a/b.pth'
    assert near('/somewhere/else.pth') == '/somewhere/else.pth' and near('s3://a/b.pth') == 's3://a/b.pth'
