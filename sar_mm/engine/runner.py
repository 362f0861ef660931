"""A runner that can be killed at any moment and resumed."""

import os.path as osp
from typing import Any, Callable, List, Optional, Union

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import nn
from torch.utils.data import DataLoader

from ..registry import RUNNERS
from .checks import check_resumed_anchors
from .hooks.seed_by_place import SeedByPlaceHook
from .hooks.share_buffers import ShareBuffersHook
from .randomness import seed_samples
from .resuming import check_is_of_run, newest_checkpoint
from .safe_checkpoints import CheckpointError, read_checkpoint, unreadable
from .saving import is_local, prepare_to_save, whole_file

MONITOR = 'anchor_monitor'  # the name among the default hooks of the hook that tools/train.py adds


@RUNNERS.register_module()
class ResumableRunner(Runner):
    """mmengine's Runner, for runs that are killed and resumed: they end as if they had not been.

    - Random numbers follow from the seed and the place in the run (:class:`.SeedByPlaceHook`). A run without a seed of
      its own is resumed with the one that it was started with.
    - A file with the name of a checkpoint is whole (:func:`.whole_file`).
    - ``resume=True`` without ``load_from``, or ``resume='auto'``, takes the newest whole checkpoint
      (:func:`.newest_checkpoint`). Where there is none, training starts from scratch, with ``resume='auto'`` from
      ``load_from``.
    - Before CheckpointHook saves and before a validation, all processes take the main one's running statistics
      (:class:`.ShareBuffersHook`).
    - A validation that was due right after the checkpoint, and is not in it, is done first.
    - Checkpoints are read without unpickling what could run code (:func:`.read_checkpoint`).

    It does not save what mmengine does not: gradients that are still accumulated, and the private state of hooks.

    ``tools/train.py`` takes it unless the config has a ``runner_type``. Arguments are mmengine's.

    Raises:
        CheckpointError: Nothing can be resumed, or no checkpoint can be written.

    Example::

        custom_imports = dict(imports=['sar_mm'])
        runner_type = 'ResumableRunner'  # for the toolboxes' own tools/train.py
    """

    _resume: Any  # mmengine's, True or 'auto' to resume
    _load_from: Any  # mmengine's, the path
    _has_chosen = False  # whether it is known which checkpoint to resume
    checkpoint: Optional[dict] = None  # the chosen one, until it is loaded
    _has_saved = False

    def build_dataloader(
        self, dataloader: Union[DataLoader, dict], seed: Optional[int] = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a data loader whose samples are drawn by their place in the run."""
        # SeedByPlaceHook comes later: mmengine 0.10.7 begins to load while it builds the loop.
        return seed_samples(super().build_dataloader(dataloader, seed=seed, diff_rank_seed=diff_rank_seed), self.seed)

    def register_hooks(self, default_hooks: Optional[dict] = None, custom_hooks: Optional[list] = None) -> None:
        """Register the hooks of the config, and those that a resumed run needs."""
        self.register_hook(SeedByPlaceHook())
        super().register_hooks(default_hooks, custom_hooks)
        if self.distributed:
            self.register_hook(ShareBuffersHook())

    def register_default_hooks(self, hooks: Optional[dict] = None) -> None:
        """Register mmengine's default hooks with those of the config, of which ``anchor_monitor`` may be None, too."""
        super().register_default_hooks(without_monitor(hooks))

    def train(self) -> nn.Module:
        """Train, or go on with a training."""
        self.choose_checkpoint()
        return super().train()

    def choose_checkpoint(self) -> Optional[str]:
        """Return the checkpoint to resume, or None to start from scratch, and take its seed; the log has the reason.

        Raises:
            CheckpointError: There are checkpoints, but all are damaged.
        """
        if not self._resume or self._has_chosen:
            return self._load_from if self._resume else None
        self._has_chosen = True
        if self._resume == 'auto' or self._load_from is None:
            path = self._find_checkpoint()
            if path is None:
                self.logger.info(f'There is no checkpoint in {self.work_dir} to resume: training starts from scratch.')
                self._resume = False
                return None
            self._resume, self._load_from = True, path
        else:
            self.logger.info(f'Resume from {self._load_from}, which is named by --resume or load_from.')
        # Samplers are built before mmengine takes the seed from the checkpoint.
        self.checkpoint = read_checkpoint(self._load_from)
        check_is_of_run(self.checkpoint, self._load_from)
        seed = self.checkpoint['meta'].get('seed')
        if seed is not None and seed != self.seed:
            self.logger.warning(f'The run goes on with the seed {seed} that {self._load_from} was trained with.')
            self._randomness_cfg.update(seed=seed)
            self.set_randomness(**self._randomness_cfg)
        return self._load_from

    def _find_checkpoint(self) -> Optional[str]:
        """Return what the main process finds: all have to go on from the same checkpoint, whatever each may see."""
        found: List[Any] = [None]
        if is_main_process():
            try:
                found = [newest_checkpoint(self.work_dir, self.hooks, self.logger)]
            except CheckpointError as error:  # the others would wait
                found = [error]
        broadcast_object_list(found)
        if isinstance(found[0], CheckpointError):
            raise found[0]
        return found[0]

    def load_checkpoint(
        self,
        filename: str,
        map_location: Union[str, Callable] = 'cpu',
        strict: bool = False,
        revise_keys: list = [(r'^module.', '')],
    ) -> dict:
        """Load weights, without unpickling what could run code. They are read onto the CPU, whatever ``map_location``.

        Raises:
            CheckpointError: The file cannot be read.
        """
        is_chosen = self.checkpoint is not None and filename == self._load_from
        checkpoint = self.checkpoint if is_chosen else read_checkpoint(filename)
        self.checkpoint = None
        # mmengine would run it as a config, only to compare the number of GPUs.
        (checkpoint.get('meta') or {}).pop('config', None)
        if self._resume:
            check_resumed_anchors(self.model, checkpoint)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        _load_checkpoint_to_model(model, checkpoint, strict, revise_keys=revise_keys)
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: Optional[dict] = None,
        *args: Any,
        backend_args: Optional[dict] = None,
        **kwargs: Any,
    ) -> None:
        """Save a checkpoint by :func:`whole_file`; the main process does, and others need not call it."""
        if not is_main_process():
            return
        with whole_file(out_dir, filename, file_client_args, backend_args) as name:
            super().save_checkpoint(out_dir, name, file_client_args, *args, backend_args=backend_args, **kwargs)
            if not self._has_saved and file_client_args is None and is_local(out_dir, backend_args):
                self._has_saved = True
                names = unreadable(osp.join(out_dir, name))
                if names:  # said now, not when the run is resumed
                    self.logger.warning(
                        f'This run saves {", ".join(names)} in its checkpoints, which PyTorch does not know to be '
                        'harmless: they are resumed only with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 in the environment.'
                    )

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks, and do what has to come before or after all of them."""
        if fn_name == 'before_train':
            for hook in self.hooks:
                if isinstance(hook, CheckpointHook):
                    prepare_to_save(self, hook)
        elif fn_name == 'after_val_epoch':  # before CheckpointHook saves once more for the best score
            # Without a training, self.iter would build the training loop, with its data.
            trained = self._train_loop.iter if isinstance(self._train_loop, BaseLoop) else 0
            self.message_hub.update_info('evaluated_at', trained)
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_train' and self._resume:
            self._validate_if_due()

    def _validate_if_due(self) -> None:
        """Validate where the run was killed after it saved this checkpoint, and before it had validated it."""
        loop = self.train_loop
        if self.val_loop is None or not hasattr(loop, 'val_begin'):
            return
        loop._decide_current_val_interval()
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        at, last = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        is_due = at >= loop.val_begin and (at % loop.val_interval == 0 or at == last)
        if by_epoch and loop.iter != loop.epoch * len(loop.dataloader):
            self.logger.warning(
                'The checkpoint was saved within an epoch, which starts again: some images come more often than in a '
                'run that is not interrupted. Save by epochs, with default_hooks.checkpoint.by_epoch=True.'
            )
        elif is_due and self.message_hub.get_info('evaluated_at') != self.iter:
            self.logger.info('The checkpoint was saved before it was validated, which is done now.')
            self.val_loop.run()


def without_monitor(hooks: Optional[dict]) -> Optional[dict]:
    """Return default hooks without ``anchor_monitor=None``: of names that it does not know, mmengine takes no None."""
    if hooks is None or hooks.get(MONITOR, True) is not None:
        return hooks
    return {name: hook for name, hook in hooks.items() if name != MONITOR}
