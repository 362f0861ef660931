from typing import Any, Optional

from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from ...registry import HOOKS


@HOOKS.register_module()
class ShareBuffersHook(Hook):
    """Broadcasts the buffers of the main process before ``CheckpointHook`` saves, and before and after a validation.

    Each process has running statistics of its own images. A checkpoint has those of the main process, with which all
    processes of a resumed run start: so does the run that is not interrupted, with this hook. :class:`ResumableRunner`
    registers it where there are several processes. When another hook saves a checkpoint, nothing is shared.

    Example::

        custom_hooks = [dict(type='ShareBuffersHook')]  # for other runners
    """

    priority = 'LOW'  # after EMAHook has changed weights, before CheckpointHook saves

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Optional[dict] = None
    ) -> None:
        if any(_saves(hook, runner, by_epoch=False) for hook in runner.hooks):
            share_buffers(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        if any(_saves(hook, runner, by_epoch=True) for hook in runner.hooks):
            share_buffers(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        share_buffers(runner)

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        # CheckpointHook may save once more for the best score, and EMAHook has swapped weights.
        share_buffers(runner)


def share_buffers(runner: Runner) -> None:
    """Broadcast the buffers of the main process; all processes have to call it."""
    if get_world_size() > 1:
        for buffer in runner.model.buffers():
            broadcast(buffer)


def _saves(hook: Hook, runner: Runner, by_epoch: bool) -> bool:
    """Return whether a hook saves now, as ``CheckpointHook`` decides it."""
    if not isinstance(hook, CheckpointHook) or hook.by_epoch is not by_epoch:
        return False
    if by_epoch:
        is_due, is_last = hook.every_n_epochs(runner, hook.interval, hook.save_begin), hook.is_last_train_epoch(runner)
    else:
        is_due = hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
        is_last = hook.is_last_train_iter(runner)
    return is_due or hook.save_last and is_last
