"""A hook for training processes under test: writes what they do, and with which data and random states, to a file."""

import hashlib
import json
import os
import random
import time

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


def fingerprint(value) -> str:
    """Return a hash of tensors, strings and numbers in dicts and lists, and of samples of both toolboxes."""
    digest = hashlib.sha1()

    def add(each):
        if isinstance(each, torch.Tensor):
            digest.update(f'{each.dtype} {tuple(each.shape)}'.encode())
            digest.update(each.detach().cpu().contiguous().numpy().tobytes())
        elif hasattr(each, 'all_items'):
            add(dict(each.all_items()))
        elif isinstance(each, dict):
            add(sorted(each.items()))  # samples keep names in sets
        elif isinstance(each, (list, tuple)):
            digest.update(f'{len(each)}['.encode())
            for part in each:
                add(part)
        elif isinstance(each, np.ndarray):
            digest.update(each.tobytes())
        else:
            digest.update(f'{each!r};'.encode())

    add(value)
    return digest.hexdigest()


def random_states() -> str:
    return fingerprint([random.getstate(), list(np.random.get_state(legacy=True)), torch.get_rng_state()])


@HOOKS.register_module()
class Probe(Hook):
    """Write a line per event, at once, so that the file says what a process was doing when it was killed.

    Args:
        ballast: Megabytes added to every checkpoint, so that writing one takes a while.
        pause: Seconds that every batch of a validation takes longer.
    """

    priority = 'LOWEST'  # after whoever seeds, saves or validates

    def __init__(self, ballast: int = 0, pause: float = 0.0) -> None:
        self.ballast, self.pause = ballast, pause

    def _write(self, runner, event: str, **what) -> None:
        line = json.dumps(dict(event=event, iter=runner.iter, pid=os.getpid(), **what)) + '\n'
        os.write(self.file, line.encode())

    def before_run(self, runner) -> None:
        path = os.path.join(runner.work_dir, f'probe.{runner.rank}.jsonl')
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._write(runner, 'started')

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self._write(runner, 'training', batch=fingerprint(data_batch), random=random_states())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        numbers = {
            name: float(value.detach() if isinstance(value, torch.Tensor) else value) for name, value in outputs.items()
        }
        self._write(runner, 'trained', outputs=numbers, random=random_states())

    def before_val_epoch(self, runner) -> None:
        self._write(runner, 'validating')

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        time.sleep(self.pause)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._write(runner, 'validated', metrics=json.dumps(metrics, default=str))

    def before_save_checkpoint(self, runner, checkpoint) -> None:
        self._write(runner, 'saving')
        checkpoint['ballast'] = torch.zeros(self.ballast << 20, dtype=torch.uint8)

    def after_train_epoch(self, runner) -> None:
        self._write(runner, 'epoch')
