from typing import Iterator, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .precision import at_least_float32

BLOCK = 2**24  # entries of a (K, K) matrix that are in memory at a time


def pairwise_cosine(anchors: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the largest and the mean cosine over all pairs of different anchors.

    Args:
        anchors: (K, C), of any floating dtype; a zero row has cosine 0 with every other.

    Returns:
        Two scalars, float32, or float64 for such anchors.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        unit = _unit(anchors)
        highest = torch.stack([_cosines(unit, rows, -1).amax() for rows in row_blocks(len(unit))]).amax()
        # The sum over all pairs is the square of the sum, less the pairs of an anchor with itself.
        total = unit.sum(dim=0).square().sum() - unit.square().sum()
    return highest, total / (len(unit) * (len(unit) - 1))


def separation_loss(anchors: Tensor, margin: float = 0.0) -> Tensor:
    """Penalize pairs of anchors closer than a margin: ``mean over j != k of relu(cos(A_j, A_k) - margin)^2``.

    Of many anchors, cosines are computed in blocks of rows, and again in the backward pass.

    Args:
        anchors: A, (K, C), of any floating dtype.
        margin: Cosines up to it cost nothing.

    Returns:
        A scalar, float32, or float64 for such anchors.
    """

    def penalty(unit: Tensor, rows: slice) -> Tensor:
        return (_cosines(unit, rows, margin) - margin).relu().square().sum()

    with torch.autocast(anchors.device.type, enabled=False):
        unit = _unit(anchors)
        blocks = list(row_blocks(len(unit)))
        if len(blocks) == 1:
            total = penalty(unit, blocks[0])
        else:
            total = torch.stack([checkpoint(penalty, unit, rows, use_reentrant=False) for rows in blocks]).sum()
        return total / (len(unit) * (len(unit) - 1))


def row_blocks(number: int) -> Iterator[slice]:
    """Yield slices of the rows of a square matrix, each of at most ``BLOCK`` entries."""
    step = max(BLOCK // number, 1)
    for start in range(0, number, step):
        yield slice(start, min(start + step, number))


def _unit(anchors: Tensor) -> Tensor:
    return F.normalize(at_least_float32(anchors), dim=1)


def _cosines(unit: Tensor, rows: slice, own: float) -> Tensor:
    """Return the cosines of some unit vectors with all, (rows, K), with ``own`` for a vector with itself."""
    cosine = unit[rows] @ unit.t()
    place = torch.arange(rows.start, rows.stop, device=unit.device)[:, None]
    return cosine.masked_fill(place == torch.arange(len(unit), device=unit.device), own)
