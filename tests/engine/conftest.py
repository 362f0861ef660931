"""Lets the tests here import the helpers next to them, and makes runners of small trainings."""

import os
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import DefaultScope

from sar_mm.engine.runner import ResumableRunner

sys.path.append(str(Path(__file__).parent))
from small_runs import MeanOutput, Model, Points, Recorder  # noqa: E402


@pytest.fixture
def make_runner(tmp_path, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())  # a Runner changes the scope of all tests

    def make_runner(
        name='run',
        until=9,
        by_epoch=False,
        resume=False,
        seed=5,
        checkpoint=None,
        sampler=None,
        kind=ResumableRunner,
        workers=0,
        **options,
    ):
        loader = dict(dataset=Points(), batch_size=3, num_workers=workers, collate_fn=dict(type='pseudo_collate'))
        train_cfg = dict(by_epoch=True, max_epochs=until) if by_epoch else dict(by_epoch=False, max_iters=until)
        # One that goes by the validations, which is for epochs only, or by the iterations.
        plateau = dict(type='ReduceOnPlateauLR', monitor='output', patience=0)
        scheduler = plateau if by_epoch else dict(type='StepLR', step_size=2)
        recorder = Recorder()
        is_own = kind is ResumableRunner
        hooks = [] if is_own else [dict(type='SeedByPlaceHook')]
        runner = kind(
            model=Model(),
            work_dir=str(tmp_path / name),
            train_dataloader=dict(
                sampler=dict(type=sampler or (DefaultSampler if by_epoch else InfiniteSampler)), **loader
            ),
            val_dataloader=dict(sampler=dict(type=DefaultSampler, shuffle=False), **loader),
            train_cfg=dict(val_interval=2 if by_epoch else 3, **train_cfg),
            val_cfg=dict(),
            val_evaluator=dict(type=MeanOutput),
            optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
            param_scheduler=dict(by_epoch=by_epoch, **scheduler),
            default_hooks=dict(
                checkpoint={
                    'type': 'CheckpointHook' if is_own else 'AtomicCheckpointHook',
                    'by_epoch': by_epoch,
                    **(checkpoint or dict(interval=1)),
                },
                logger=dict(type='LoggerHook', interval=1),
            ),
            custom_hooks=[recorder, *hooks],
            randomness=dict(seed=seed),
            resume=resume,
            default_scope='mmengine',
            experiment_name=f'{name}{os.urandom(4).hex()}',
            **options,
        )
        runner.recorder = recorder
        return runner

    return make_runner
