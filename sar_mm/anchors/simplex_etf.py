import math

import torch
from torch import Tensor

from ..checks import check
from ..registry import ANCHORS
from .base import PredefinedAnchors, random_orthonormal


def simplex_etf(num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
    """Return a randomly rotated simplex of unit vectors, (K, D) float64, with cosine -1 / (K - 1) of every pair."""
    # Helmert's matrix: the columns are an orthonormal basis of the complement of (1, ..., 1).
    basis = torch.zeros(num_classes, num_classes - 1, dtype=torch.float64, device='cpu')
    for i in range(1, num_classes):
        basis[:i, i - 1] = 1 / math.sqrt(i * (i + 1))
        basis[i, i - 1] = -i / math.sqrt(i * (i + 1))
    vertices = basis * math.sqrt(num_classes / (num_classes - 1))
    return vertices @ random_orthonormal(num_classes - 1, dim, generator)


@ANCHORS.register_module()
class SimplexETFAnchors(PredefinedAnchors):
    """Anchors that form a simplex equiangular tight frame: unit vectors with cosine -1 / (K - 1) of every pair.

    See :class:`PredefinedAnchors` for the arguments.

    Raises:
        ValueError: More than ``dim + 1`` classes.

    Example::

        anchor_head=dict(anchors=dict(type='SimplexETFAnchors'))
    """

    def generate(self, num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
        check(dim >= num_classes - 1, 'dim', dim, f'at least the number of classes less one ({num_classes - 1})')
        return simplex_etf(num_classes, dim, generator)
