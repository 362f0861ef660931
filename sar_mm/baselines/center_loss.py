from typing import Callable, Dict, Optional

import torch
from torch import Tensor

from ..checks import check_probability, check_weight
from ..models.feature_head import FeatureHead
from ..ops import pull_loss
from ..registry import MODELS
from .class_sums import class_sums


@MODELS.register_module()
class CenterLossHead(FeatureHead):
    """Center loss: ``weight / 2 * mean of ||f_i - c_{y_i}||^2``, with centers that follow the features.

    Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016, eq. 2 and 4 and
    algorithm 1. After the loss, ``c_k`` moves by ``-alpha * sum_i [y_i = k] (c_k - f_i) / (1 + n_k)``, over all
    processes. The mean is over the batch, where the paper has the sum: ``weight`` is its lambda times the batch size.

    Args:
        num_classes: K.
        channels: C.
        weight: Weight of the loss; 0.003 * 256 in the paper.
        alpha: Rate of the centers.
        ignore_index: Label that is left out.

    The buffer ``semantic_anchors``, (K, C), holds the centers, which start at 0.

    Example::

        head=dict(type='SARLinearClsHead', anchor_head=dict(type='CenterLossHead', weight=0.1))
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        weight: float = 0.768,
        alpha: float = 0.5,
        ignore_index: Optional[int] = 255,
    ) -> None:
        super().__init__(num_classes, channels, ignore_index)
        check_weight('weight', weight)
        check_probability('alpha', alpha, ends=True)
        self.weight = weight
        self.alpha = alpha
        self.register_buffer('semantic_anchors', torch.zeros(num_classes, channels, dtype=torch.float32))

    def step(
        self, feature: Tensor, target: Tensor, classify: Callable[[Tensor], Tensor], weight: Optional[Tensor]
    ) -> Dict[str, Tensor]:
        centers = self.semantic_anchors.clone()
        loss = self.channels / 2 * pull_loss(feature, target, centers, self.ignore_index, weight=weight)
        if self.keeps_state:
            sums, number = class_sums(feature, target, self.num_classes, self.ignore_index, weight)
            difference = (number[:, None] * centers - sums) / (1 + number)[:, None]
            self.semantic_anchors.copy_(centers - self.alpha * difference)
        return dict(loss_pull=self.weight * loss)
