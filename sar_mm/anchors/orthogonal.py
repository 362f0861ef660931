import torch
from torch import Tensor

from ..checks import check
from ..registry import ANCHORS
from .base import PredefinedAnchors, random_orthonormal


@ANCHORS.register_module()
class OrthogonalAnchors(PredefinedAnchors):
    """Orthonormal anchors: cosine 0 between every pair; at most ``dim`` classes.

    See :class:`PredefinedAnchors` for the arguments.

    Raises:
        ValueError: Fewer dimensions than classes.

    Example::

        anchor_head=dict(anchors=dict(type='OrthogonalAnchors'))
    """

    def generate(self, num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
        check(dim >= num_classes, 'dim', dim, f'at least the number of classes ({num_classes}) for orthogonal anchors')
        return random_orthonormal(num_classes, dim, generator)
