import pytest
import torch
from mmengine.runner import CheckpointLoader
from small_runs import read, same, start_from

from sar_mm.engine.runner import without_monitor


@pytest.mark.parametrize(
    'by_epoch, stop, end, seed', [(False, 'iter_4', 'iter_9', 5), (True, 'epoch_3', 'epoch_5', None)]
)
def test_runner__a_resumed_run_ends_as_the_whole_one(make_runner, tmp_path, by_epoch, stop, end, seed):
    until = 5 if by_epoch else 9
    whole = make_runner('whole', until, by_epoch, seed=seed)
    whole.train()
    start_from(whole, tmp_path / 'resumed', stop, whole)
    resumed = make_runner('resumed', until, by_epoch, resume=True, seed=seed)
    resumed.train()
    assert resumed.seed == whole.seed
    assert same(read(resumed, end), read(whole, end))


@pytest.mark.parametrize('by_epoch, stop, end', [(False, 'iter_6', 'iter_9'), (True, 'epoch_2', 'epoch_5')])
def test_runner__a_validation_cut_short_is_made_up_for(make_runner, tmp_path, by_epoch, stop, end):
    """With epochs, the learning rate follows the validations: it is the same if none is left out or done twice."""
    until = 5 if by_epoch else 9
    whole = make_runner('whole', until, by_epoch)
    whole.train()
    start_from(whole, tmp_path / 'resumed', stop, whole)
    resumed = make_runner('resumed', until, by_epoch, resume=True)
    resumed.train()
    number = len(resumed.recorder.validated)
    assert number >= 2 and resumed.recorder.validated == whole.recorder.validated[-number:]
    assert same(read(resumed, end), read(whole, end))


def test_runner__a_validation_in_the_checkpoint_is_not_done_twice(make_runner, tmp_path):
    best = dict(interval=3, save_best='output', rule='greater')
    whole = make_runner('whole', checkpoint=best)
    whole.train()
    first = torch.load(f'{whole.work_dir}/iter_3.pth', weights_only=False)
    assert first['message_hub']['runtime_info']['evaluated_at'] == 3  # saved again, as the best one so far
    start_from(whole, tmp_path / 'resumed', 'iter_3', whole)
    resumed = make_runner('resumed', resume=True, checkpoint=best)
    resumed.train()
    assert resumed.recorder.validated == whole.recorder.validated[1:]
    assert same(read(resumed, 'iter_9'), read(whole, 'iter_9'))


def test_runner__auto_starts_from_load_from_where_nothing_can_be_resumed(make_runner, tmp_path):
    first = make_runner('first', until=2)
    first.train()
    weights = str(tmp_path / 'first' / 'iter_2.pth')
    runner = make_runner('second', until=1, resume='auto', load_from=weights)
    assert runner.choose_checkpoint() is None
    runner.load_or_resume()
    assert same(dict(runner.model.state_dict()), dict(first.model.state_dict()))
    runner.train()
    again = make_runner('second', until=3, resume='auto', load_from=weights)
    assert again.choose_checkpoint() == str(tmp_path / 'second' / 'iter_1.pth')


def test_runner__a_config_in_a_checkpoint_is_not_run(make_runner, tmp_path):
    runner = make_runner(until=2)
    runner.train()
    path, mark = f'{runner.work_dir}/iter_2.pth', tmp_path / 'was-run'
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['config'] = f'open({str(mark)!r}, "w")'
    torch.save(checkpoint, path)
    make_runner(until=3, resume=True).train()
    assert not mark.exists()


def test_runner__reads_the_checkpoint_once_and_says_why_it_is_this_one(make_runner, tmp_path, monkeypatch):
    make_runner(until=2).train()
    read, loads = CheckpointLoader.load_checkpoint, []
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', lambda path, *rest, **kw: loads.append(path) or read(path))
    path, said = str(tmp_path / 'run' / 'iter_2.pth'), []
    for options, why in (
        ({}, 'the newest whole checkpoint in'),
        (dict(load_from=path), 'named by --resume or load_from'),
    ):
        runner = make_runner(until=3, resume=True, **options)
        monkeypatch.setattr(type(runner.logger), 'info', lambda self, message, *args: said.append(message))
        assert runner.choose_checkpoint() == path
        runner.train()
        assert runner.iter == 3 and loads == [path]
        assert len([line for line in said if line.startswith(f'Resume from {path}, ') and why in line]) == 1
        (tmp_path / 'run' / 'iter_3.pth').unlink()
        (tmp_path / 'run' / 'last_checkpoint').write_text(path)
        loads.clear()


def test_runner__a_validation_alone_needs_no_training_data(make_runner, tmp_path):
    make_runner('first', until=2).train()
    runner = make_runner(load_from=str(tmp_path / 'first' / 'iter_2.pth'))
    runner.hooks.remove(runner.recorder)  # asks for the iteration, which builds the training loop
    metrics = runner.val()
    assert 'output' in metrics and isinstance(runner._train_loop, dict)


@pytest.mark.parametrize(
    'sampler, by_epoch, stop, end',
    [
        ('RandomSampler', False, 'iter_6', 'iter_9'),
        ('RandomSampler', True, 'epoch_2', 'epoch_4'),
        ('WeightedRandomSampler', False, 'iter_6', 'iter_9'),
        ('SequentialSampler', True, 'epoch_2', 'epoch_4'),
    ],
)
def test_runner__resumes_with_samplers_that_nobody_tells_the_epoch(
    make_runner, tmp_path, monkeypatch, sampler, by_epoch, stop, end
):
    """Passes of 4 iterations; mmengine waits 2 seconds between two."""
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    kind = getattr(torch.utils.data, sampler)

    def make(dataset, seed=None):
        return kind([1.0] * 12, 12) if sampler == 'WeightedRandomSampler' else kind(dataset)

    until = 4 if by_epoch else 9
    options = dict(by_epoch=by_epoch, sampler=make)
    whole = make_runner('whole', until, **options)
    whole.train()
    start_from(whole, tmp_path / 'resumed', stop, whole)
    resumed = make_runner('resumed', until, resume=True, **options)
    resumed.train()
    assert same(read(resumed, end), read(whole, end))


def test_without_monitor():
    hooks = dict(timer=None, anchor_monitor=None)
    assert without_monitor(hooks) == dict(timer=None) and hooks == dict(timer=None, anchor_monitor=None)
    for kept in (None, {}, dict(timer=None), dict(anchor_monitor=dict(type='AnchorMonitorHook'))):
        assert without_monitor(kept) == kept
