import math
from typing import Iterator, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_integer
from ..registry import ANCHORS
from .base import PredefinedAnchors, random_orthonormal
from .simplex_etf import simplex_etf
from .unbiased_bases import unbiased_bases

BUDGET = 2e11  # products of two numbers that an optimization may take: about 10 s on two cores
BLOCK = 2**24  # cosines that are in memory at a time


@ANCHORS.register_module()
class SeparatedAnchors(PredefinedAnchors):
    """Unit vectors with a small largest pairwise cosine, for any K and D.

    For K <= 2 D they are the exact optimum: K - D simplices in orthogonal subspaces, or one where K <= D + 1; the
    largest cosine is that of the simplex, else 0 (Rankin, "The closest packing of spherical caps in n dimensions",
    1955). Else they are the better of two: points optimized from a random start, which takes fewer steps where K and D
    are large, and vectors of mutually unbiased bases, whose largest cosine is about sqrt(2 / D); see
    :func:`.unbiased_bases`.

    Args:
        dim: See :class:`PredefinedAnchors`.
        seed: See :class:`PredefinedAnchors`.
        steps: Largest number of optimization steps.

    Raises:
        ValueError: ``steps`` below 0.

    Example::

        anchor_head=dict(anchors=dict(type='SeparatedAnchors', dim=64))
    """

    def __init__(self, dim: Optional[int] = None, seed: int = 0, steps: int = 500) -> None:
        super().__init__(dim, seed)
        check_integer('steps', steps, minimum=0)
        self.steps = steps

    def generate(self, num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
        if num_classes <= 2 * dim:
            return orthogonal_simplices(num_classes, dim, generator)
        points = torch.randn(num_classes, dim, generator=generator, dtype=torch.float64, device='cpu')
        points = F.normalize(points)
        if dim == 1:  # the two directions have no gradient between them
            return points
        bases = unbiased_bases(num_classes, dim, generator)
        steps = min(self.steps, int(BUDGET / (num_classes**2 * dim)))
        if bases is None:
            return spread(points, max(steps, min(self.steps, 1)))
        if steps < min(self.steps, 50):  # so few do not come near to the bases
            return bases
        return min(bases, spread(points, steps), key=largest_cosine)


def orthogonal_simplices(num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
    """Return simplices in orthogonal subspaces, (K, D) float64, K <= 2 D, as few of them as D allows."""
    groups = max(num_classes - dim, 1)
    sizes = [num_classes // groups + (group < num_classes % groups) for group in range(groups)]
    if groups == 1:
        return simplex_etf(num_classes, dim, generator)
    rotation = random_orthonormal(dim, dim, generator)
    found, used = [], 0
    for size in sizes:
        found.append(simplex_etf(size, size - 1, generator) @ rotation[used : used + size - 1])
        used += size - 1
    return torch.cat(found)


def largest_cosine(unit: Tensor) -> float:
    """Return the largest cosine of two different ones of unit vectors (K, D)."""
    return max(cosine.max().item() for _, cosine in cosines(unit))


def cosines(unit: Tensor) -> Iterator[Tuple[slice, Tensor]]:
    """Yield rows of unit vectors (K, D), and their cosines with all, minus infinity for a vector with itself."""
    step = max(BLOCK // len(unit), 1)
    for start in range(0, len(unit), step):
        rows = slice(start, start + step)
        cosine = unit[rows] @ unit.t()
        cosine.diagonal(start).fill_(-math.inf)
        yield rows, cosine


def spread(points: Tensor, steps: int) -> Tensor:
    """Return unit vectors moved apart: a smooth maximum of their pairwise cosines, minimized with Adam.

    Args:
        points: (K, D), float64.
        steps: Number of steps.
    """
    points = points.clone()
    optimizer = torch.optim.Adam([points], lr=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(steps, 1))
    for step in range(steps):
        # The smooth maximum sharpens over the steps: first all pairs move apart, then the closest ones.
        points.grad = gradient(points, sharpness=10 * 20 ** (step / steps))
        optimizer.step()
        scheduler.step()
    return F.normalize(points)


def gradient(points: Tensor, sharpness: float) -> Tensor:
    """Return the gradient of ``logsumexp(sharpness * cosine of all pairs) / sharpness`` for points (K, D)."""
    norm = points.norm(dim=1, keepdim=True)
    unit = points / norm
    found, total, highest = torch.zeros_like(unit), 0.0, -math.inf
    for rows, cosine in cosines(unit):
        largest = max(cosine.max().item(), highest)
        scale = math.exp(sharpness * (highest - largest))  # of the sums so far: no exponential may overflow
        weight = cosine.sub_(largest).mul_(sharpness).exp_()
        found *= scale
        found[rows] = weight @ unit
        total, highest = total * scale + weight.sum().item(), largest
    found *= 2 / total
    return (found - (found * unit).sum(dim=1, keepdim=True) * unit) / norm
