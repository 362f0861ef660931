"""Which checkpoint a run is resumed from, and whether it is one of a run."""

import logging
import os.path as osp
import re
import zipfile
import zlib
from glob import escape, glob
from itertools import product
from pathlib import Path
from typing import List, Optional, Sequence

from mmengine.fileio import get_file_backend
from mmengine.hooks import CheckpointHook, Hook

from .safe_checkpoints import CheckpointError
from .saving import is_local


def newest_checkpoint(work_dir: str, hooks: Sequence[Hook], logger: logging.Logger) -> Optional[str]:
    """Return the newest whole checkpoint of a run, or None where there is none.

    The one that mmengine's ``last_checkpoint`` names is the newest; the others go by the time of the file.

    Args:
        work_dir: Of the run.
        hooks: Of the run; its CheckpointHooks know where else checkpoints are, and their names.
        logger: To say which one it is and why, and which damaged ones are skipped.

    Raises:
        CheckpointError: All checkpoints are damaged, or the last one of an object store is not there.
    """
    hooks = [hook for hook in hooks if isinstance(hook, CheckpointHook)]
    named = _last_checkpoint(work_dir)
    damaged: List[str] = []
    remedy = 'to start from scratch, or name a checkpoint with --resume PATH'
    for hook in hooks:
        # An object store has a checkpoint whole or not at all.
        if named and not hook.file_client_args and not is_local(named, hook.backend_args):
            if not get_file_backend(named, backend_args=hook.backend_args).isfile(named):
                raise CheckpointError(
                    f'{work_dir}/last_checkpoint names {named}, which is not there: remove it {remedy}'
                )
            logger.info(f'Resume from {named}, which {work_dir}/last_checkpoint names.')
            return named
    own = osp.basename(work_dir.rstrip(osp.sep))  # as CheckpointHook calls its folder in an out_dir
    folders = [work_dir, *(osp.join(hook.out_dir, own) for hook in hooks if hook.out_dir)]
    names = [hook.filename_tmpl for hook in hooks if hook.filename_tmpl]
    for path in _checkpoints(folders, [*names, 'iter_{}.pth', 'epoch_{}.pth'], named):
        if _is_whole(path):
            for other in damaged:
                logger.warning(f'{other} is damaged and skipped: training goes on from {path}.')
            logger.info(f'Resume from {path}, the newest whole checkpoint in {" and ".join(folders)}.')
            return path
        damaged.append(path)
    if damaged:
        raise CheckpointError(f'every checkpoint in {work_dir} is damaged: {", ".join(damaged)}; remove them {remedy}')
    if named:
        logger.warning(f'{work_dir}/last_checkpoint names {named}, which is not there.')
    return None


def check_is_of_run(checkpoint: dict, path: str) -> None:
    """Raise a CheckpointError where a checkpoint is not one of a training run, but has only weights."""
    meta = checkpoint.get('meta') or {}
    missing = [f'meta.{name}' for name in ('epoch', 'iter') if name not in meta]
    missing += ['message_hub'] * ('message_hub' not in checkpoint)
    if missing:
        raise CheckpointError(
            f'{path} cannot be resumed: it has no {", no ".join(missing)}, as a file of weights has none. To start a '
            f'training from its weights, set load_from={path!r} without resume'
        )


def _checkpoints(folders: Sequence[str], names: Sequence[str], named: str) -> List[str]:
    """Return the checkpoints that there are, the newest first."""
    found = {}
    for folder, name in product(folders, names):
        parts = re.split(r'\{[^}]*\}', name)  # a name may have a folder in it
        number = re.compile(r'(\d+)'.join(map(re.escape, parts)))
        for path in glob(osp.join(escape(folder), '*'.join(map(escape, parts)))):
            match = number.fullmatch(Path(path).relative_to(folder).as_posix())
            if match and osp.isfile(path):
                found[path] = (osp.getmtime(path), [int(each) for each in match.groups()])
    paths = sorted(found, key=found.__getitem__, reverse=True)
    # The work folder may have been moved since.
    ends = [osp.join(folder, *Path(named).parts[-1 - name.count('/') :]) for folder, name in product(folders, names)]
    last = [path for path in (named, *ends) if named and osp.isfile(path)][:1]
    return last + [path for path in paths if path not in last]


def _last_checkpoint(folder: str) -> str:
    """Return the path in mmengine's ``last_checkpoint``; nothing where there is none, or a kill has left it empty."""
    try:
        return Path(folder, 'last_checkpoint').read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ''


def _is_whole(path: str) -> bool:
    """Compare a checkpoint with the checksums in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return False
