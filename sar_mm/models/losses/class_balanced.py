from typing import Optional, Sequence

import torch
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
        self.beta = beta  # first: the counts of the config are turned into weights at once
        super().__init__(**kwargs)

    def set_class_counts(self, class_counts: Sequence[float]) -> None:
        super().set_class_counts(class_counts)
        counts = torch.tensor(self.class_counts, dtype=torch.float32)
        self.effective_weight = effective_number_weights(counts, self.beta)  # no buffer: see TakesClassCounts

    def weights_for(self, counts: Tensor) -> Optional[Tensor]:
        weight = self.effective_weight.to(counts.device, non_blocking=True)
        given = super().weights_for(counts)
        return weight if given is None else weight * given
