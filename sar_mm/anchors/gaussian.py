import torch
from torch import Tensor

from ..registry import ANCHORS
from .base import PredefinedAnchors


@ANCHORS.register_module()
class GaussianAnchors(PredefinedAnchors):
    """Anchors with independent N(0, 1) entries, the default of the paper.

    See :class:`PredefinedAnchors` for the arguments.

    Example::

        anchor_head=dict(anchors=dict(type='GaussianAnchors', dim=512, seed=1))
    """

    def generate(self, num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
        return torch.randn(num_classes, dim, generator=generator, device='cpu')
