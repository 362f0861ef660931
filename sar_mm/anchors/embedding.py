from pathlib import Path
from typing import Optional, Union

import numpy as np
import torch
from torch import Tensor

from ..checks import UsageError, check, check_choice
from ..registry import ANCHORS
from .base import PredefinedAnchors


@ANCHORS.register_module()
class EmbeddingAnchors(PredefinedAnchors):
    """Anchors read from a file, row k for class k, for instance text embeddings of the class names.

    Nothing is unpickled. The file is read when the anchors are made: a test or an export, which takes the anchors from
    the checkpoint, does not need it.

    Args:
        path: A ``.npy`` or ``.safetensors`` file with a floating-point matrix (K, D).
        key: Name of the tensor in a ``.safetensors`` file; required if it holds several.

    Raises:
        FileNotFoundError: There is no such file when the anchors are made.
        ValueError: The file has another suffix, holds pickled objects, or its matrix is not (K, D) and finite.

    Example::

        anchor_head=dict(anchors=dict(type='EmbeddingAnchors', path='data/cityscapes_names.npy'))
    """

    def __init__(self, path: Union[str, Path], key: Optional[str] = None) -> None:
        super().__init__()
        suffix = Path(path).suffix if isinstance(path, (str, Path)) else None
        check(suffix in ('.npy', '.safetensors'), 'path', path, 'a .npy or .safetensors file')
        self.path = Path(path)
        self.key = key

    def generate(self, num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
        if not self.path.is_file():
            raise FileNotFoundError(
                f'Expected argument `path` to be an existing file of predefined anchors, but got {str(self.path)!r}'
            )
        array = self._read()
        is_matrix = array.is_floating_point() and array.dim() == 2 and array.shape[0] == num_classes and array.numel()
        check(
            bool(is_matrix),
            'path',
            str(self.path),
            f'a file with a floating-point matrix ({num_classes}, D), one row per class (this one holds '
            f'{str(array.dtype).split(".")[-1]} of shape {tuple(array.shape)})',
        )
        check(bool(array.isfinite().all()), 'path', str(self.path), 'a file without NaN or infinite entries')
        return array

    def _read(self) -> Tensor:
        if self.path.suffix == '.npy':
            try:
                return torch.from_numpy(np.load(self.path, allow_pickle=False))
            except (ValueError, TypeError, EOFError, OSError) as error:
                raise UsageError(
                    f'Expected argument `path` to be a .npy file with a plain matrix (pickled objects are refused), '
                    f'but got {str(self.path)!r}: {error}'
                ) from error
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ImportError as error:
            raise ImportError('Reading .safetensors anchors needs `pip install safetensors`.') from error
        try:
            tensors = load_file(self.path)
        except SafetensorError as error:
            raise UsageError(
                f'Expected argument `path` to be a .safetensors file, but got {str(self.path)!r}: {error}'
            ) from error
        if self.key is None:
            check(len(tensors) == 1, 'key', None, f'one of {sorted(tensors)}')
        else:
            check_choice('key', self.key, sorted(tensors))
        return tensors[self.key] if self.key is not None else next(iter(tensors.values()))
