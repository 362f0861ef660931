from typing import Optional

import torch
from torch import Tensor

from ..checks import check_probability, check_weight
from ..models.feature_head import Classify, FeatureHead, Losses
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
        weight: Weight of the loss; 0.003 * 256 in the paper.
        alpha: Rate of the centers.
        kwargs: ``num_classes``, ``channels`` and ``ignore_index``, see :class:`FeatureHead`.

    The buffer ``semantic_anchors``, (K, C), holds the centers, which start at 0.

    Example::

        head=dict(type='SARLinearClsHead', anchor_head=dict(type='CenterLossHead', weight=0.1))
    """

    semantic_anchors: Tensor

    def __init__(self, *args, weight: float = 0.768, alpha: float = 0.5, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_weight('weight', weight)
        check_probability('alpha', alpha, ends=True)
        self.weight = weight
        self.alpha = alpha
        self.register_buffer('semantic_anchors', torch.zeros(self.num_classes, self.channels, dtype=torch.float32))

    def step(self, feature: Tensor, target: Tensor, classify: Classify, weight: Optional[Tensor]) -> Losses:
        centers = self.semantic_anchors.clone()
        loss = self.channels / 2 * pull_loss(feature, target, centers, self.ignore_index, weight=weight)
        if self.keeps_state:
            sums, number = class_sums(feature, target, self.num_classes, self.ignore_index, weight)
            difference = (number[:, None] * centers - sums) / (1 + number)[:, None]
            self.semantic_anchors.copy_(centers - self.alpha * difference)
        return dict(loss_pull=self.weight * loss)
