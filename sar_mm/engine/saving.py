"""Checkpoints that are written: room for them, and a name only for what is whole."""

import os
import os.path as osp
import shutil
import tempfile
from contextlib import contextmanager
from typing import Iterator, Optional

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from .safe_checkpoints import CheckpointError


@contextmanager
def whole_file(
    out_dir: str, filename: str, file_client_args: Optional[dict] = None, backend_args: Optional[dict] = None
) -> Iterator[str]:
    """Yield a temporary name for a checkpoint, which gets its own name once all of it is on the disk.

    Where the folder is in an object store, which shows nothing before it is whole, the name is its own. As with
    mmengine, the main process writes the file.

    Raises:
        CheckpointError: It cannot be written.
    """
    subfolder, name = osp.split(filename)
    is_temporary = name.startswith('.') and name.endswith('.tmp')  # of an AtomicCheckpointHook in a ResumableRunner
    if is_temporary or file_client_args is not None or not is_local(out_dir, backend_args):
        yield filename
        return
    temporary = osp.join(subfolder, f'.{name}.tmp')
    if not is_main_process():
        yield temporary
        return
    path, source = osp.join(out_dir, filename), osp.join(out_dir, temporary)
    try:
        os.makedirs(osp.dirname(path), exist_ok=True)
        yield temporary
        _flush(source)
        os.replace(source, path)
        _flush(osp.dirname(path))
    except OSError as error:
        if osp.exists(source):
            os.remove(source)
        raise CheckpointError(
            f'{path} cannot be written: {error}; {_free(out_dir)} are free there. Earlier checkpoints are whole: '
            'make room, and go on with --resume'
        ) from error


def prepare_to_save(runner: Runner, hook: CheckpointHook) -> None:
    """Let a CheckpointHook keep at least two checkpoints, and check that it can save; before its ``before_train``.

    Raises:
        CheckpointError: Its folder cannot be written to, or has no room for a checkpoint.
    """
    if hook.max_keep_ckpts == 1:
        # mmengine removes the old checkpoint before it writes the new one.
        hook.max_keep_ckpts = 2
        runner.logger.warning('Two checkpoints are kept, not one: a run killed while it saves would have none.')
    folder = hook.out_dir or runner.work_dir
    is_main = is_main_process() and not hook.file_client_args and is_local(folder, hook.backend_args)
    if is_main and runner.iter < runner.max_iters:
        check_folder('default_hooks.checkpoint.out_dir' if hook.out_dir else 'work_dir', folder, _least_size(runner))


def check_folder(setting: str, folder: str, needed: int = 0) -> None:
    """Raise a CheckpointError unless the folder of a setting takes a file of so many bytes; make it if missing."""
    remedy = f'name another folder {"with --work-dir" if setting == "work_dir" else "in the config"}'
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'0')
    except OSError as error:
        raise CheckpointError(f'{setting}={folder!r} cannot be written to: {error.strerror}; {remedy}') from error
    if shutil.disk_usage(folder).free < needed:
        raise CheckpointError(
            f'{setting}={folder!r} has no room for a checkpoint, which takes at least {needed / 1e6:.1f} MB, but '
            f'{_free(folder)} are free there: make room, or {remedy}'
        )


def is_local(path: str, backend_args: Optional[dict]) -> bool:
    """Return whether a path is one of the local file system, as mmengine decides it."""
    return isinstance(get_file_backend(path, backend_args=backend_args), LocalBackend)


def _least_size(runner: Runner) -> int:
    """Return the least number of bytes of a checkpoint: the weights, and what the optimizer keeps about them."""
    tensors = [*runner.model.parameters(), *runner.model.buffers()]
    several = isinstance(runner.optim_wrapper, OptimWrapperDict)
    for wrapper in runner.optim_wrapper.values() if several else [runner.optim_wrapper]:
        for group in wrapper.param_groups:
            moments = 2 if 'betas' in group else 1 if group.get('momentum') else 0
            tensors += moments * [parameter for parameter in group['params'] if parameter.requires_grad]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _flush(path: str) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == 'nt':  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free(folder: str) -> str:
    return f'{shutil.disk_usage(folder).free / 1e6:.1f} MB'
