"""Reading the checkpoints of mmengine without unpickling anything that could run code."""

import os
import re
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any, Callable, Iterator

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

# What says how torch.load treats files; the second is PyTorch's own way to say that a file is trusted.
FORCE, TRUST = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
_STATISTICS = ('min', 'max', 'mean', 'current')


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
    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint') or TRUST in os.environ:
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


def _known_globals() -> list:
    dtypes = {type(np.dtype(kind)) for kind in '?bBhHiIlLqQefd'}
    multiarray = (np._core if hasattr(np, '_core') else np.core).multiarray
    # Files name these as the numpy does that wrote them.
    functions = [
        (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
        for name in ('_reconstruct', 'scalar')
        for core in ('core', '_core')
    ]
    return [HistoryBuffer, np.ndarray, np.dtype, *dtypes, *functions, (_statistic, 'builtins.getattr')]


def _statistic(owner: Any, name: str) -> Callable:
    """Stand in for ``getattr``, by which a log names its statistics: it reaches nothing else."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise ValueError(f'a checkpoint may not ask for {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


def _reason(error: Exception) -> str:
    """Return the sentence of PyTorch's many that names what is refused."""
    if isinstance(error, CheckpointError):
        return str(error)
    found = re.search(r'(?:GLOBAL|Unsupported|Trying to|Can only)[^\n]*?(?=\. |\.\n|\n|$)', str(error))
    return found[0] if found else str(error).strip().split('\n')[0] or type(error).__name__
