"""Reading the checkpoints of mmengine without unpickling anything that could run code."""

import os
import re
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any, Callable, Iterator, List

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader

# What says how torch.load treats files; the second is PyTorch's own way to say that a file is trusted.
FORCE, TRUST = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
# What is pickled as a function of a class: the statistics of a log, and the curves of a schedule.
_FUNCTIONS = {
    HistoryBuffer: ('min', 'max', 'mean', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


class CheckpointError(Exception):
    """A checkpoint cannot be read, or not be written; the message says what to do."""


@contextmanager
def safe_checkpoints() -> Iterator[None]:
    """Within it, PyTorch reads what mmengine saves (weights, optimizer, schedules, logs), and refuses everything else.

    From PyTorch 2.6 on, ``torch.load`` refuses what it does not know. mmengine 0.10.7 does not say what it saves, and
    could not resume its own runs; OneDL's does, but unpickles a file all the same where that is not enough. The
    environment variable ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` unpickles what is trusted. With an older PyTorch, the
    host library decides.

    Raises:
        CheckpointError: A file holds something else.
    """
    if not _is_checked():
        yield
        return
    before = os.environ.get(FORCE)
    os.environ[FORCE] = '1'
    # What is there already is to stay there afterwards.
    known = [known for known in _known_globals() if known not in torch.serialization.get_safe_globals()]
    try:
        with torch.serialization.safe_globals(known):
            yield
    except UnpicklingError as error:
        raise CheckpointError(
            f'the checkpoint holds what PyTorch does not know to be harmless, or is damaged: {_reason(error)}; if you '
            f'trust where it comes from, set {TRUST}=1'
        ) from error
    finally:
        if before is None:
            del os.environ[FORCE]
        else:
            os.environ[FORCE] = before


@contextmanager
def safe_loading() -> Iterator[None]:
    """Within it, whatever mmengine's CheckpointLoader reads is read as :func:`safe_checkpoints` does.

    That is pretrained weights too. What data sets and hooks read by ``torch.load`` themselves is left to them.
    """
    before = CheckpointLoader.__dict__['load_checkpoint']

    def load_checkpoint(cls: type, *args: Any, **kwargs: Any) -> Any:
        with safe_checkpoints():
            return before.__func__(cls, *args, **kwargs)

    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
    try:
        yield
    finally:
        CheckpointLoader.load_checkpoint = before


def unreadable(path: str) -> List[str]:
    """Return the names of what a checkpoint on the disk holds and :func:`safe_checkpoints` refuses."""
    if not _is_checked():
        return []
    with safe_checkpoints():
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))


def read_checkpoint(path: str) -> dict:
    """Read a checkpoint, from wherever mmengine can, onto the CPU, as :func:`safe_checkpoints` does.

    Raises:
        CheckpointError: It holds something else, or cannot be read.
    """
    try:
        with safe_checkpoints():
            checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        if not isinstance(checkpoint, dict):
            raise TypeError(f'it holds a {type(checkpoint).__name__}, not a dict')
        return checkpoint
    except Exception as error:  # reading a damaged file can raise anything
        raise CheckpointError(f'{path} cannot be read as a checkpoint: {_reason(error)}') from error


def _is_checked() -> bool:
    return hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint') and TRUST not in os.environ


def _known_globals() -> list:
    dtypes = {type(np.dtype(kind)) for kind in '?bBhHiIlLqQefdFDU'}
    multiarray = (np._core if hasattr(np, '_core') else np.core).multiarray
    # Files name these as the numpy does that wrote them.
    functions = [
        (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
        for name in ('_reconstruct', 'scalar')
        for core in ('core', '_core')
    ]
    classes = [*_FUNCTIONS, ConfigDict, range, np.ndarray, np.dtype, *dtypes]
    return [*classes, *functions, (_function, 'builtins.getattr'), (_no_bytes, 'builtins.bytes')]


def _function(owner: Any, name: str) -> Callable:
    """Stand in for ``getattr``, which reaches no other functions."""
    if not isinstance(owner, type) or name not in _FUNCTIONS.get(owner, ()):
        raise ValueError(f'a checkpoint may not ask for {name!r} of {owner!r}')
    return getattr(owner, name)


def _no_bytes() -> bytes:
    """Stand in for ``bytes``, which an empty array is pickled with."""
    return b''


def _reason(error: Exception) -> str:
    """Return the sentence of PyTorch's many that names what is refused."""
    if isinstance(error, CheckpointError):
        return str(error)
    # OneDL's mmengine tries again without what is allowed here, which fails for another reason.
    while isinstance(error.__context__, UnpicklingError):
        error = error.__context__
    found = re.search(r'(?:GLOBAL|Unsupported|Trying to|Can only)[^\n]*?(?=\. |\.\n|\n|$)', str(error))
    return found[0] if found else str(error).strip().split('\n')[0] or type(error).__name__
