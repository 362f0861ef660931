"""A runner whose runs can be killed at any moment."""

import logging
import os
import os.path as osp
import re
import shutil
import tempfile
import zipfile
import zlib
from glob import escape, glob
from pathlib import Path
from typing import Any, List, Optional, Sequence, Union

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from ..registry import RUNNERS
from .checks import check_resumed_anchors
from .hooks.share_buffers import ShareBuffersHook
from .randomness import EndlessBatches, SeededLoader, seed_iteration, seed_samples
from .safe_checkpoints import CheckpointError, read_checkpoint, safe_checkpoints, unreadable

_NAMES = ('iter_{}.pth', 'epoch_{}.pth')


@RUNNERS.register_module()
class ResumableRunner(Runner):
    """mmengine's Runner, for runs that are killed and resumed: in the end it is as if they had not been.

    - Random numbers depend on the seed, the process, and the place in the run (:mod:`.randomness`). A run without a
      seed of its own is resumed with the one it was started with.
    - A checkpoint appears under its name once it is wholly on the disk.
    - ``resume=True`` without ``load_from``, or ``resume='auto'``, takes the newest checkpoint that is whole, with a
      warning for each damaged one that it passes over. Where there is none at all, training starts anew, with
      ``resume='auto'`` from ``load_from``.
    - Before ``CheckpointHook`` saves and before a validation, all processes take the main one's running statistics
      (:class:`.ShareBuffersHook`).
    - A validation that was due right after the checkpoint, and is not in it, is made up for.
    - Checkpoints are read without unpickling what could run code (:func:`.safe_checkpoints`).

    It does not save what mmengine does not: gradients that are still accumulated, and what hooks keep to themselves.

    ``tools/train.py`` takes it unless the config has a ``runner_type``. Arguments are mmengine's.

    Raises:
        CheckpointError: Nothing can be resumed, or no checkpoint can be written.

    Example::

        custom_imports = dict(imports=['sar_mm'])
        runner_type = 'ResumableRunner'  # for the toolboxes' own tools/train.py
    """

    _has_chosen = False  # whether it is known which checkpoint to resume
    _has_read = False  # whether it is known that checkpoints can be resumed

    def build_dataloader(
        self, dataloader: Union[DataLoader, dict], seed: Optional[int] = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a data loader whose samples are drawn by their place in the run."""
        loader = super().build_dataloader(dataloader, seed=seed, diff_rank_seed=diff_rank_seed)
        return seed_samples(loader, self.seed)

    def build_train_loop(self, loop: Union[BaseLoop, dict]) -> BaseLoop:
        """Build the training loop; where mmengine's would skip batches itself when it is resumed, they are counted."""
        built = super().build_train_loop(loop)
        batches = getattr(built, 'dataloader_iterator', None)
        if built is not loop and hasattr(batches, 'skip_iter') and isinstance(built.dataloader, SeededLoader):
            built.dataloader_iterator = EndlessBatches(built.dataloader)
        return built

    def register_hooks(self, default_hooks: Optional[dict] = None, custom_hooks: Optional[list] = None) -> None:
        """Register the hooks, and one that shares buffers among processes."""
        super().register_hooks(default_hooks, custom_hooks)
        if self.distributed:
            self.register_hook(ShareBuffersHook())

    def train(self) -> nn.Module:
        """Train, or go on with a training."""
        self.choose_checkpoint()
        for hook in self.hooks:
            if isinstance(hook, CheckpointHook) and hook.max_keep_ckpts == 1:
                # mmengine removes the old checkpoint before it writes the new one.
                hook.max_keep_ckpts = 2
                self.logger.warning('Two checkpoints are kept, not one: a run killed while it saves would have none.')
        return super().train()

    def choose_checkpoint(self) -> Optional[str]:
        """Return the checkpoint to resume, or None to start anew, and take its seed.

        Raises:
            CheckpointError: There are checkpoints, but all are damaged.
        """
        if not self._resume or self._has_chosen:
            return self._load_from if self._resume else None
        self._has_chosen = True
        if self._resume == 'auto' or self._load_from is None:
            # All processes have to go on from the same one, whatever each may see.
            chosen = [None]
            if is_main_process():
                try:
                    chosen = [self._find_checkpoint()]
                except CheckpointError as error:  # the others would wait
                    chosen = [error]
            broadcast_object_list(chosen)
            if isinstance(chosen[0], CheckpointError):
                raise chosen[0]
            if chosen[0] is None:
                self.logger.info(f'There is no checkpoint in {self.work_dir} to resume: training starts anew.')
                self._resume = False
                return None
            self._resume, self._load_from = True, chosen[0]
        # Samplers are built before mmengine takes the seed from the checkpoint.
        checkpoint = read_checkpoint(self._load_from)
        check_is_of_run(checkpoint, self._load_from)
        seed = checkpoint['meta'].get('seed')
        if seed is not None and seed != self.seed:
            self.logger.warning(f'The run goes on with the seed {seed} that {self._load_from} was trained with.')
            self._randomness_cfg.update(seed=seed)
            self.set_randomness(**self._randomness_cfg)
        return self._load_from

    def _find_checkpoint(self) -> Optional[str]:
        hooks = [hook for hook in self.hooks if isinstance(hook, CheckpointHook)]
        named = _read_last_checkpoint(self.work_dir)
        for hook in hooks:
            # What lies elsewhere, an object store has whole or not at all.
            if named and not hook.file_client_args and not _is_local(named, hook.backend_args):
                if not get_file_backend(named, backend_args=hook.backend_args).isfile(named):
                    raise CheckpointError(
                        f'{self.work_dir}/last_checkpoint names {named}, which is not there: remove it to start anew, '
                        'or name a checkpoint with --resume PATH'
                    )
                return named
        own = osp.basename(self.work_dir.rstrip(osp.sep))  # as CheckpointHook calls its folder in an out_dir
        folders = [self.work_dir, *(osp.join(hook.out_dir, own) for hook in hooks if hook.out_dir)]
        names = [hook.filename_tmpl for hook in hooks if hook.filename_tmpl]
        return find_whole_checkpoint(folders, self.logger, [*names, *_NAMES])

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks; around some of them, do what makes a resumed run go on as it would have."""
        if fn_name == 'before_train':
            self._check_space()
        elif fn_name == 'before_train_epoch' and not isinstance(self.train_loop, IterBasedTrainLoop):
            self._start_pass(self.train_loop, self.epoch)
        elif fn_name == 'before_train_iter':
            seed_iteration(self.seed, self.iter)
        elif fn_name == 'after_load_checkpoint' and self._resume:
            check_resumed_anchors(self.model, kwargs['checkpoint'])
        elif fn_name == 'before_val_epoch':
            self._start_pass(self.val_loop, self._trained_iterations())
        elif fn_name == 'after_val_epoch':  # before CheckpointHook saves once more for the best score
            self.message_hub.update_info('evaluated_at', self._trained_iterations())
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_train' and self._resume:
            self._validate_if_due()

    @staticmethod
    def _start_pass(loop: BaseLoop, number: int) -> None:
        loader = getattr(loop, 'dataloader', None)
        if isinstance(loader, SeededLoader):
            loader.start_pass(number)

    def _trained_iterations(self) -> int:
        # Where the run is no training, self.iter would build the training loop, with its data.
        return self._train_loop.iter if isinstance(self._train_loop, BaseLoop) else 0

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict:
        """Load weights, without unpickling what could run code."""
        with safe_checkpoints():
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        # mmengine would run it as a config, only to compare the number of GPUs.
        checkpoint.get('meta', {}).pop('config', None)
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
        """Save a checkpoint under a temporary name, and give it its own once it is on the disk.

        As with mmengine, the main process saves, and others need not call it.
        """
        if not is_main_process():
            return

        def save(name: str) -> None:
            super(ResumableRunner, self).save_checkpoint(
                out_dir, name, file_client_args, *args, backend_args=backend_args, **kwargs
            )

        backend = get_file_backend(out_dir, backend_args=backend_args)
        if file_client_args is not None or not isinstance(backend, LocalBackend):
            save(filename)  # object stores show nothing before it is whole
            return
        path = osp.join(out_dir, filename)  # the name may have a folder in it
        folder, name = osp.split(path)
        temporary = osp.join(folder, f'.{name}.tmp')
        try:
            os.makedirs(folder, exist_ok=True)
            save(osp.join(osp.dirname(filename), osp.basename(temporary)))
            self._warn_of_unreadable(temporary)
            _flush(temporary)
            os.replace(temporary, path)
            _flush(folder)
        except OSError as error:
            if osp.exists(temporary):
                os.remove(temporary)
            raise CheckpointError(
                f'{path} cannot be written: {error}; {_free(out_dir)} are free there. Earlier checkpoints are whole: '
                'make room, and go on with --resume'
            ) from error

    def _warn_of_unreadable(self, path: str) -> None:
        """Say with the first checkpoint, not after the run was killed, that it holds what is not read again."""
        if not self._has_read:
            self._has_read = True
            names = unreadable(path)
            if names:
                self.logger.warning(
                    f'This run saves {", ".join(names)} in its checkpoints, which PyTorch does not know to be '
                    'harmless: they are resumed only with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 in the environment.'
                )

    def _check_space(self) -> None:
        """Raise a CheckpointError where no checkpoint can be written, or has room."""
        if not is_main_process() or self.iter >= self.max_iters:
            return
        needed = self._checkpoint_size()
        for hook in self.hooks:
            if not isinstance(hook, CheckpointHook) or hook.file_client_args:
                continue
            folder = hook.out_dir or self.work_dir
            if not _is_local(folder, hook.backend_args):
                continue
            setting = 'default_hooks.checkpoint.out_dir' if hook.out_dir else 'work_dir'
            check_folder(setting, folder)
            if shutil.disk_usage(folder).free < needed:
                raise CheckpointError(
                    f'{setting}={folder!r} has no room for a checkpoint, which takes at least {_megabytes(needed)}, '
                    f'but {_free(folder)} are free there: make room, or {_remedy(setting)}'
                )

    def _checkpoint_size(self) -> int:
        """Return the least number of bytes of a checkpoint: the weights, and what the optimizer keeps about them."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        several = isinstance(self.optim_wrapper, OptimWrapperDict)
        wrappers = self.optim_wrapper.values() if several else [self.optim_wrapper]
        for group in (group for wrapper in wrappers for group in wrapper.param_groups):
            moments = 2 if 'betas' in group else 1 if group.get('momentum') else 0
            tensors += moments * [parameter for parameter in group['params'] if parameter.requires_grad]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

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
            return
        if is_due and self.message_hub.get_info('evaluated_at') != self.iter:
            self.logger.info('The checkpoint was saved before it was validated, which is done now.')
            self.val_loop.run()


def check_folder(setting: str, folder: str) -> None:
    """Raise a CheckpointError unless files can be written to the folder of a setting; make it where it is not there."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'0')
    except OSError as error:
        raise CheckpointError(
            f'{setting}={folder!r} cannot be written to: {error.strerror}; {_remedy(setting)}'
        ) from error


def check_is_of_run(checkpoint: dict, path: str) -> None:
    """Raise a CheckpointError where a checkpoint is not one of a training run, but has only weights."""
    meta = checkpoint.get('meta') or {}
    missing = [name for name in ('epoch', 'iter') if name not in meta]
    missing = [f'meta.{name}' for name in missing] + ['message_hub'] * ('message_hub' not in checkpoint)
    if missing:
        raise CheckpointError(
            f'{path} cannot be resumed: it has no {", no ".join(missing)}, as a file of weights has none. To start a '
            f'training from its weights, set load_from={path!r} without resume'
        )


def find_whole_checkpoint(
    folders: Sequence[str], logger: logging.Logger, names: Sequence[str] = _NAMES
) -> Optional[str]:
    """Return the newest checkpoint of a run that is whole, or None where there is none.

    Args:
        folders: The work folder, and others where its checkpoints may be.
        logger: For warnings of those that are damaged.
        names: Of checkpoints, with ``{}`` for the number of the iteration or epoch.

    Raises:
        CheckpointError: There are checkpoints, but all are damaged.
    """
    damaged = []
    for path in _checkpoints(folders, names):
        if _is_whole(path):
            for other in damaged:
                logger.warning(f'{other} is damaged and passed over: training goes on from {path}.')
            return path
        damaged.append(path)
    if damaged:
        raise CheckpointError(
            f'every checkpoint in {folders[0]} is damaged: {", ".join(damaged)}; remove them to start anew, or name a '
            'checkpoint with --resume PATH'
        )
    named = _read_last_checkpoint(folders[0])
    if named:
        logger.warning(f'{folders[0]}/last_checkpoint names {named}, which is not there.')
    return None


def _checkpoints(folders: Sequence[str], names: Sequence[str]) -> List[str]:
    """Return the checkpoints that there are, the newest first."""
    named = _read_last_checkpoint(folders[0])
    depths = [name.count('/') + 1 for name in names]  # a name may have folders in it
    # A work folder may have been moved since.
    candidates = (named, *(osp.join(folder, _end(named, depth)) for depth in depths for folder in folders))
    last = next((path for path in candidates if osp.isfile(path)), None)
    found = {}
    for name, depth in zip(names, depths):
        parts = re.split(r'\{[^}]*\}', name)
        number = re.compile(r'(\d+)'.join(map(re.escape, parts)))
        in_last = last and number.fullmatch(_end(last, depth))
        # Where the last one is, unless its name is none of these.
        own = str(Path(last).parents[depth - 1]) if in_last else osp.dirname(last) if last else None
        for folder in folders if own is None else [own]:
            for path in glob(osp.join(escape(folder), '*'.join(map(escape, parts)))):
                match = number.fullmatch(_end(path, depth))
                if match and osp.isfile(path):
                    found[path] = (osp.getmtime(path), [int(each) for each in match.groups()])
    paths = sorted(found, key=found.get, reverse=True)
    return [last, *(path for path in paths if path != last)] if last else paths


def _end(path: str, depth: int) -> str:
    """Return the last parts of a path."""
    return '/'.join(Path(path).parts[-depth:])


def _read_last_checkpoint(folder: str) -> str:
    """Return the path in mmengine's note of its last checkpoint; none where a kill has left it empty."""
    try:
        return Path(folder, 'last_checkpoint').read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ''


def _is_local(path: str, backend_args: Optional[dict]) -> bool:
    return isinstance(get_file_backend(path, backend_args=backend_args), LocalBackend)


def _is_whole(path: str) -> bool:
    """Compare a checkpoint with the checksums in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return False


def _flush(path: str) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == 'nt':  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remedy(setting: str) -> str:
    return f'name another folder {"with --work-dir" if setting == "work_dir" else "in the config"}'


def _free(folder: str) -> str:
    return _megabytes(shutil.disk_usage(folder).free)


def _megabytes(size: int) -> str:
    return f'{size / 1e6:.1f} MB'
