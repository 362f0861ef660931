from typing import Any, Optional

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ...registry import HOOKS
from ..saving import prepare_to_save, whole_file


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, for runs that are killed at any moment: a file with the name of a checkpoint is whole.

    It writes under a temporary name, waits for the disk and renames the file. At least two checkpoints are kept. A
    :class:`ResumableRunner` writes this way with any hook; this one is for other runners whose checkpoints are files,
    also for FlexibleRunner. With strategies that write folders (DeepSpeed), take CheckpointHook. Arguments are those of
    CheckpointHook.

    Raises:
        CheckpointError: Before the first step, the folder cannot be written to or has no room for a checkpoint; later,
            a checkpoint cannot be written.

    Example::

        default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))  # other options as they are in the base
    """

    def before_train(self, runner: Runner) -> None:
        prepare_to_save(runner, self)
        super().before_train(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Optional[dict] = None
    ) -> None:
        super().after_train_iter(_AtomicSaves(runner), batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner: Runner) -> None:
        super().after_train_epoch(_AtomicSaves(runner))

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        super().after_val_epoch(_AtomicSaves(runner), metrics)


class _AtomicSaves:
    """A runner whose ``save_checkpoint`` goes by :func:`whole_file`; all else is the runner's own."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: Optional[dict] = None,
        backend_args: Optional[dict] = None,
        **options: Any,
    ) -> None:
        with whole_file(out_dir, filename, file_client_args, backend_args) as name:
            self._runner.save_checkpoint(out_dir, name, file_client_args, backend_args=backend_args, **options)
