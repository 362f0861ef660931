"""Reading the checkpoints of mmengine without unpickling anything that could run code."""

import os
import re
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any, Callable, Iterator, List, Sequence

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader

# PyTorch's own switches of torch.load: for files that are not trusted, and for those that are.
FORCE, TRUST = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
# What is pickled as an attribute of a class: the statistics of a log, and the curves of a schedule.
_FUNCTIONS = {
    HistoryBuffer: ('min', 'max', 'mean', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


class CheckpointError(Exception):
    """A checkpoint cannot be read or written; the message says what to do."""


class Unknown:
    """Takes the place of an object of a class that is not known to be harmless."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __setstate__(self, state) -> None:
        pass


@contextmanager
def safe_checkpoints(others: Sequence = ()) -> Iterator[None]:
    """Within it, PyTorch reads what mmengine saves (weights, optimizer, schedules, logs), and refuses everything else.

    mmengine 0.10.7 does not tell PyTorch what it saves, and cannot resume its own runs with PyTorch 2.6 and newer;
    OneDL's does, but unpickles a file that is refused. ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` in the environment
    unpickles what is trusted. With PyTorch below 2.6, mmengine decides.

    Args:
        others: What is read as well, as ``torch.serialization.safe_globals`` takes it.

    Raises:
        CheckpointError: A file holds something else.
    """
    if not _is_checked():
        yield
        return
    before = os.environ.get(FORCE)
    os.environ[FORCE] = '1'
    # safe_globals() removes at its end what it is given, and so what the caller may have added before.
    known = [known for known in [*_known_globals(), *others] if known not in torch.serialization.get_safe_globals()]
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
    """Within it, mmengine's CheckpointLoader reads as within :func:`safe_checkpoints`, pretrained weights included.

    Other calls of ``torch.load``, such as those of data sets and hooks, stay as they are.
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


def read_checkpoint(path: str, skip_unknown: bool = False) -> dict:
    """Read a checkpoint, from wherever mmengine can, onto the CPU, as :func:`safe_checkpoints` does.

    Args:
        path: A path or address.
        skip_unknown: Put an :class:`Unknown` where an object would be refused; ``path`` is a file then.

    Raises:
        CheckpointError: It holds what is refused, or cannot be read.
    """
    try:
        if skip_unknown and not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        else:
            with safe_checkpoints([(Unknown, name) for name in unreadable(path)] if skip_unknown else ()):
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
    """Replace ``getattr``, for these attributes only."""
    if not isinstance(owner, type) or name not in _FUNCTIONS.get(owner, ()):
        raise ValueError(f'a checkpoint may not ask for {name!r} of {owner!r}')
    return getattr(owner, name)


def _no_bytes() -> bytes:
    """Replace ``bytes``, which an empty array is pickled with."""
    return b''


def _reason(error: Exception) -> str:
    """Return the sentence of PyTorch's message that names what is refused."""
    if isinstance(error, CheckpointError):
        return str(error)
    # OneDL's mmengine tries again without the classes allowed here, which fails for another reason.
    while isinstance(error.__context__, UnpicklingError):
        error = error.__context__
    found = re.search(r'(?:GLOBAL|Unsupported|Trying to|Can only)[^\n]*?(?=\. |\.\n|\n|$)', str(error))
    return found[0] if found else str(error).strip().split('\n')[0] or type(error).__name__
