"""Two processes with other running statistics; they load this very file and run its ``main``."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from sar_mm.engine.runner import ResumableRunner


class Points(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.randn(3) + index)


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, inputs, mode='tensor'):
        output = self.norm(torch.stack(inputs))
        return dict(loss=output.square().mean()) if mode == 'loss' else list(output)


class Watch(Hook):
    """Notes the running mean, and saves on the main process alone."""

    priority = 'LOWEST'

    def __init__(self):
        self.means = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.means.append(runner.model.module.norm.running_mean.tolist())
        if get_rank() == 0:
            runner.save_checkpoint(runner.work_dir, f'own_{runner.iter}.pth', by_epoch=False)


def main(folder):
    torch.distributed.init_process_group('gloo')
    watch = Watch()
    runner = ResumableRunner(
        model=Model(),
        work_dir=folder,
        train_dataloader=dict(
            dataset=Points(),
            batch_size=2,
            sampler=dict(type='InfiniteSampler'),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
        custom_hooks=[watch],
        randomness=dict(seed=3),
        launcher='pytorch',
        default_scope='mmengine',
        cfg=dict(
            model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False),
        ),
    )
    runner.train()
    Path(folder, f'means.{get_rank()}.json').write_text(json.dumps(watch.means))


def run(folder):
    """Train in two processes, and return the running means of each after every step."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        port = listener.getsockname()[1]
    environment = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', WORLD_SIZE='2')
    environment.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    command = [sys.executable, __file__, str(folder)]
    processes = [
        subprocess.Popen(command, env=dict(environment, RANK=rank, LOCAL_RANK=rank), stderr=subprocess.PIPE)
        for rank in '01'
    ]
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors.decode()[-2000:]
    return [json.loads((folder / f'means.{rank}.json').read_text()) for rank in '01']


def test_share_buffers__where_the_hook_saves_and_not_where_the_main_process_saves_alone(tmp_path):
    main_ones, others = run(tmp_path)
    assert [one == other for one, other in zip(main_ones, others)] == [False, True, False, True]
    for step, mean in enumerate(main_ones):
        checkpoint = torch.load(tmp_path / f'own_{step}.pth', weights_only=False)
        assert checkpoint['state_dict']['norm.running_mean'].tolist() == mean


if __name__ == '__main__':
    main(sys.argv[1])
