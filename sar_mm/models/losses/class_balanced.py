from typing import Optional, Sequence

from torch import Tensor

from ...checks import check_beta
from ...ops import effective_number_weights
from ...registry import MODELS
from .counted import ClassCountLoss


@MODELS.register_module()
class ClassBalancedLoss(ClassCountLoss):
    """Cross-entropy weighted by the inverse effective number of samples, ``(1 - beta) / (1 - beta^n_k)``.

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, eq. 2.

    Args:
        beta: In [0, 1): 0 for no weights, near 1 for the inverse frequency.
        kwargs: See :class:`ClassCountLoss`; ``class_weight`` is multiplied in.

    Example::

        head=dict(type='LinearClsHead', loss=dict(type='ClassBalancedLoss', beta=0.9999))
        custom_hooks=[dict(type='ClassCountsHook')]
    """

    def __init__(self, beta: float = 0.9999, **kwargs) -> None:
        check_beta(beta)
        self.beta = beta  # first: counts that are given are turned into weights at once
        super().__init__(**kwargs)

    def _keep(self, class_counts: Sequence[float]) -> None:
        super()._keep(class_counts)
        self._effective_weight = effective_number_weights(self.class_counts, self.beta)

    def weights_for(self, counts: Tensor) -> Optional[Tensor]:
        weight = self._placed('_effective_weight', counts.device)
        given = super().weights_for(counts)
        return weight if given is None else weight * given
