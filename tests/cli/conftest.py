"""A training of a tiny model whose summary is looked at."""

import argparse
import re
import sys
import time
from collections import OrderedDict
from pathlib import Path

import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import DefaultScope

from sar_mm.cli import summary as summary_module
from sar_mm.cli.summary import Summary
from sar_mm.engine.runner import ResumableRunner

sys.path.append(str(Path(__file__).parent))
from summarized import Falling, Model, Points, Stop  # noqa: E402


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['tools/train.py'])

    def train(
        steps=4,
        by_epoch=False,
        stop=None,
        best=None,
        validate=True,
        checkpoints=2,
        cfg=None,
        model=None,
        resume=False,
        load_from=None,
        log=True,
        **given,
    ):
        defaults = dict(config='my.py', cfg_options=None, work_dir=None, launcher='none')
        args = argparse.Namespace(**{**defaults, 'amp': False, 'no_validate': False, 'auto_scale_lr': False, **given})
        loader = dict(dataset=Points(), batch_size=2)
        val = dict(val_dataloader=dict(sampler=dict(type=DefaultSampler, shuffle=False), **loader))
        val.update(val_cfg=dict(), val_evaluator=dict(type=Falling))
        loop = dict(by_epoch=True, max_epochs=steps) if by_epoch else dict(by_epoch=False, max_iters=steps)
        runner = ResumableRunner(
            model=model or Model(),
            resume=resume,
            load_from=load_from,
            work_dir='work_dirs/my',
            train_dataloader=dict(sampler=dict(type=DefaultSampler if by_epoch else InfiniteSampler), **loader),
            train_cfg=dict(val_interval=1 if by_epoch else 2, **loop),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=checkpoints, by_epoch=by_epoch, save_best=best),
            ),
            custom_hooks=[Stop(*stop)] if stop else [],
            default_scope='mmengine',
            experiment_name=f'{tmp_path.name}{time.monotonic()}',
            **(val if validate else {}),
        )
        runner.cfg.merge_from_dict(cfg or {})
        (file,) = Path(runner.log_dir).glob('*.log')
        before = len(file.read_text())  # of a training in the same second
        summary = Summary(runner, args)
        if not log:
            monkeypatch.setattr(summary_module.osp, 'isfile', lambda path: False)
        try:
            runner.train()
            summary.show()
        except BaseException as error:
            assert stop and error is stop[1]
            summary.show(failed=True)
        text = file.read_text()[before:]
        assert text.count('The training ') <= 1
        found = re.search(r'The training (has ended|was stopped): (.*), 0:00:\d\d(.*)\n((?:  .*\n)*)', text)
        rows = dict(line[2:].split(maxsplit=1) for line in found[4].splitlines()) if found else {}
        return found and found[1], found and found[2] + found[3], rows

    return train
