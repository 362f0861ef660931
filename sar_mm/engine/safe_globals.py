"""What a checkpoint of mmengine holds beside tensors, so that PyTorch may read it without unpickling anything else.

From PyTorch 2.6 on, ``torch.load`` refuses what it does not know. mmengine up to 0.10.7 does not say what it saves, and
could not resume its own runs: its logs, and numbers of numpy.
"""

from typing import Any, Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_METHODS = ('min', 'max', 'mean', 'current')


def _history_method(owner: Any, name: str) -> Callable:
    """Stand in for ``getattr``, by which a log names its statistics; anything else it could reach is refused."""
    if owner is not HistoryBuffer or name not in _METHODS:
        raise ValueError(f'a checkpoint may not ask for {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)``, PyTorch's default, read the checkpoints of mmengine."""
    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # before PyTorch 2.6 nothing is refused
        return
    dtypes = {type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)}
    multiarray = (np._core if hasattr(np, '_core') else np.core).multiarray
    functions = [getattr(multiarray, name) for name in ('_reconstruct', 'scalar')]
    names = [
        (function, f'numpy.{core}.multiarray.{function.__name__}')
        for function in functions
        for core in ('core', '_core')
    ]
    torch.serialization.add_safe_globals(
        [HistoryBuffer, np.ndarray, np.dtype, *dtypes, *names, (_history_method, 'builtins.getattr')]
    )
