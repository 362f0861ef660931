from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def pairwise_cosine(anchors: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the largest and the mean cosine over all pairs of different anchors.

    Args:
        anchors: (K, C), of any floating dtype; a zero row has cosine 0 with every other.

    Returns:
        Two scalars, float32, or float64 for such anchors.
    """
    cosine, same = _cosines(anchors)
    pairs = len(anchors) * (len(anchors) - 1)
    return cosine.masked_fill(same, -1).max(), cosine.masked_fill(same, 0).sum() / pairs


def separation_loss(anchors: Tensor, margin: float = 0.0) -> Tensor:
    """Penalize pairs of anchors closer than a margin: ``mean over j != k of relu(cos(A_j, A_k) - margin)^2``.

    Args:
        anchors: A, (K, C), of any floating dtype.
        margin: Cosines up to it cost nothing.

    Returns:
        A scalar, float32, or float64 for such anchors.
    """
    cosine, same = _cosines(anchors)
    pairs = len(anchors) * (len(anchors) - 1)
    return (cosine - margin).relu().square().masked_fill(same, 0).sum() / pairs


def _cosines(anchors: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the cosines of all pairs, (K, K), and the mask of the diagonal."""
    with torch.autocast(anchors.device.type, enabled=False):
        unit = F.normalize(at_least_float32(anchors), dim=1)
        cosine = unit @ unit.t()
    return cosine, torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
