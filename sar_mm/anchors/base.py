from abc import ABC, abstractmethod
from typing import Optional

import torch
from torch import Tensor

from ..checks import check_integer, check_seed


class PredefinedAnchors(ABC):
    """Base of class anchors that are made from a seed, without data.

    Calling the object returns the anchors: a float32 tensor (K, D) on the CPU, the same in every process.

    Args:
        dim: D, the anchor dimension. None: the number of channels of the features.
        seed: Seed of the generator.

    Raises:
        ValueError: ``dim`` below 1, a ``seed`` that is negative or too large, or fewer than two classes.
        TypeError: ``generate`` of a subclass returns no floating-point tensor.
    """

    def __init__(self, dim: Optional[int] = None, seed: int = 0) -> None:
        if dim is not None:
            check_integer('dim', dim, minimum=1)
        check_seed(seed)
        self.dim = dim
        self.seed = seed

    def __call__(self, num_classes: int, channels: int) -> Tensor:
        check_integer('num_classes', num_classes, minimum=2)
        check_integer('channels', channels, minimum=1)
        # Named, as a model may be built under another default device.
        generator = torch.Generator(device='cpu').manual_seed(self.seed)
        anchors = self.generate(num_classes, self.dim or channels, generator)
        return _checked(anchors, num_classes, f'{type(self).__name__}.generate()').to('cpu', torch.float32)

    @abstractmethod
    def generate(self, num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
        """Return the anchors, a floating-point tensor (num_classes, dim); D may differ from ``dim``."""


def _checked(anchors: Tensor, num_classes: int, name: str) -> Tensor:
    if not isinstance(anchors, Tensor) or not anchors.is_floating_point():
        found = anchors.dtype if isinstance(anchors, Tensor) else type(anchors).__name__
        raise TypeError(f'Expected {name} to return a floating-point tensor ({num_classes}, D), but got {found}')
    if anchors.dim() != 2 or len(anchors) != num_classes or anchors.shape[1] == 0:
        raise ValueError(f'Expected {name} to return the shape ({num_classes}, D), but got {tuple(anchors.shape)}')
    if not anchors.detach().isfinite().all():
        raise ValueError(f'Expected {name} to return finite numbers, but got NaN or infinite ones')
    return anchors.detach()


def random_orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Return ``rows`` random orthonormal vectors of ``columns`` entries, float64, uniformly distributed."""
    gaussian = torch.randn(columns, rows, generator=generator, dtype=torch.float64, device='cpu')
    q, r = torch.linalg.qr(gaussian)
    # QR leaves the signs of the columns open; LAPACKs differ in them.
    return (q * r.diagonal().sign()).t()
