import math
from typing import Optional

import torch
from torch import Tensor

from ..checks import check, is_number
from ..registry import ANCHORS
from .base import PredefinedAnchors, random_orthonormal
from .simplex_etf import simplex_etf


@ANCHORS.register_module()
class EquiangularAnchors(PredefinedAnchors):
    """Unit vectors with the same cosine between every pair, randomly rotated.

    They need K dimensions, and K - 1 for the smallest possible cosine, -1 / (K - 1), which gives a simplex. With
    cosine 0 they are orthonormal.

    Args:
        dim: See :class:`PredefinedAnchors`.
        seed: See :class:`PredefinedAnchors`.
        cosine: The cosine of every pair, in [-1 / (K - 1), 1).

    Raises:
        ValueError: A cosine that K vectors cannot share, or too few dimensions.

    Example::

        anchor_head=dict(anchors=dict(type='EquiangularAnchors', cosine=0.3))
    """

    def __init__(self, dim: Optional[int] = None, seed: int = 0, cosine: float = 0.0) -> None:
        super().__init__(dim, seed)
        check(is_number(cosine) and -1 <= cosine < 1, 'cosine', cosine, 'a number in [-1 / (K - 1), 1)')
        self.cosine = cosine

    def generate(self, num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
        smallest = -1 / (num_classes - 1)
        is_simplex = math.isclose(self.cosine, smallest, abs_tol=1e-9)
        check(
            is_simplex or self.cosine > smallest,
            'cosine',
            self.cosine,
            f'a number in [-1 / (K - 1), 1), which is [{smallest}, 1) for {num_classes} classes',
        )
        needed = num_classes - is_simplex
        check(dim >= needed, 'dim', dim, f'at least {needed} for {num_classes} classes with cosine {self.cosine}')
        if is_simplex:
            return simplex_etf(num_classes, dim, generator)
        # The symmetric square root of the Gram matrix (1 - c) I + c 1 1^T, whose eigenvalues are 1 - c and, along the
        # vector of ones, 1 - c + K c.
        across, along = math.sqrt(1 - self.cosine), math.sqrt(1 - self.cosine + num_classes * self.cosine)
        root = across * torch.eye(num_classes, dtype=torch.float64, device='cpu') + (along - across) / num_classes
        return root @ random_orthonormal(num_classes, dim, generator)
