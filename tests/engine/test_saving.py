import logging
import os
import shutil
from decimal import Decimal

import pytest
from mmengine.runner import FlexibleRunner, Runner

from sar_mm.engine.resuming import newest_checkpoint
from sar_mm.engine.runner import ResumableRunner
from sar_mm.engine.safe_checkpoints import CheckpointError


@pytest.mark.parametrize('kind', [ResumableRunner, Runner])
def test_prepare_to_save__a_checkpoint_is_kept_while_the_next_is_saved(make_runner, kind):
    runner = make_runner(checkpoint=dict(interval=1, max_keep_ckpts=1), kind=kind)
    runner.train()
    assert sorted(name for name in os.listdir(runner.work_dir) if name.endswith('.pth')) == ['iter_8.pth', 'iter_9.pth']


@pytest.mark.parametrize(
    'kind, hook',
    [
        (ResumableRunner, 'CheckpointHook'),
        (ResumableRunner, 'AtomicCheckpointHook'),
        (Runner, 'AtomicCheckpointHook'),
        (FlexibleRunner, 'AtomicCheckpointHook'),
    ],
)
def test_whole_file__one_that_cannot_be_written_leaves_the_others(make_runner, monkeypatch, kind, hook):
    runner = make_runner(until=3, kind=kind, checkpoint=dict(type=hook, interval=1))

    def replace(source, target):
        if target.endswith('iter_2.pth'):
            raise OSError(28, 'No space left on device')
        os.rename(source, target)

    monkeypatch.setattr('sar_mm.engine.saving.os.replace', replace)
    with pytest.raises(CheckpointError, match=r'/iter_2\.pth cannot be written.*No space left.*MB are free.*--resume'):
        runner.train()
    names = [name for name in os.listdir(runner.work_dir) if 'pth' in name]
    assert names == ['iter_1.pth']
    assert newest_checkpoint(runner.work_dir, runner.hooks, logging.getLogger()).endswith('iter_1.pth')


@pytest.mark.parametrize('kind', [ResumableRunner, Runner, FlexibleRunner])
def test_prepare_to_save__no_room_for_a_checkpoint_is_told_before_training(make_runner, monkeypatch, kind):
    runner = make_runner(until=1, kind=kind)
    # 21 weights and two moments of each, in float32.
    monkeypatch.setattr('sar_mm.engine.saving.shutil.disk_usage', lambda folder: shutil._ntuple_diskusage(1, 1, 251))
    with pytest.raises(CheckpointError, match=r"work_dir='.*' has no room .* at least 0\.0 MB.*--work-dir"):
        runner.train()
    assert runner.iter == 0
    monkeypatch.setattr('sar_mm.engine.saving.shutil.disk_usage', lambda folder: shutil._ntuple_diskusage(1, 1, 252))
    runner.train()


def test_prepare_to_save__another_folder_that_cannot_be_written_to_is_told_before_training(make_runner, tmp_path):
    (tmp_path / 'file').write_text('')
    runner = make_runner(checkpoint=dict(interval=1, out_dir=str(tmp_path / 'file' / 'out')))
    with pytest.raises(CheckpointError, match="out_dir='.*file/out' cannot be written to: Not a directory"):
        runner.train()
    assert runner.iter == 0


def test_save_checkpoint__what_cannot_be_resumed_is_told_with_the_first_checkpoint(make_runner, monkeypatch):
    runner, warned = make_runner(until=2), []
    runner.message_hub.update_info('oddity', Decimal(1))
    monkeypatch.setattr(type(runner.logger), 'warning', lambda self, message, *args: warned.append(message))
    runner.train()
    warned = [message for message in warned if 'decimal.Decimal' in message]
    assert len(warned) == 1 and 'resumed only with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1' in warned[0]
