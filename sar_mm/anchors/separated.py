from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_integer
from ..registry import ANCHORS
from .base import PredefinedAnchors
from .simplex_etf import simplex_etf


@ANCHORS.register_module()
class SeparatedAnchors(PredefinedAnchors):
    """Unit vectors that minimize the largest pairwise cosine, for any K and D.

    For K <= D + 1 the result is a simplex, the exact optimum; else it is optimized from a random start.

    Args:
        dim: See :class:`PredefinedAnchors`.
        seed: See :class:`PredefinedAnchors`.
        steps: Number of optimization steps.

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
        if num_classes <= dim + 1:
            return simplex_etf(num_classes, dim, generator)
        points = torch.randn(num_classes, dim, generator=generator, dtype=torch.float64, device='cpu')
        points = F.normalize(points)
        if dim > 1:  # in one dimension, the two directions have no gradient between them
            points = self._spread(points)
        return points

    @torch.enable_grad()
    def _spread(self, points: Tensor) -> Tensor:
        points = points.requires_grad_()
        optimizer = torch.optim.Adam([points], lr=0.05)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(self.steps, 1))
        for step in range(self.steps):
            # The smooth maximum sharpens over the steps: first all pairs move apart, then the closest ones.
            sharpness = 10 * 20 ** (step / self.steps)
            unit = F.normalize(points)
            cosine = unit @ unit.t() - 4 * torch.eye(len(unit), dtype=unit.dtype, device='cpu')
            optimizer.zero_grad()
            (torch.logsumexp(sharpness * cosine, dim=(0, 1)) / sharpness).backward()
            optimizer.step()
            scheduler.step()
        return F.normalize(points.detach())
