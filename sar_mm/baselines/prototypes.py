from typing import Optional

import torch
from torch import Tensor

from ..checks import check_probability, check_weight
from ..models.feature_head import Classify, FeatureHead, Losses
from ..ops import pull_loss
from ..registry import MODELS
from .class_sums import class_sums


@MODELS.register_module()
class PrototypeHead(FeatureHead):
    """Pulls features to the moving averages of their class means: what semantic anchors were proposed against.

    The prototype of a class starts at the mean of its first features and is ``momentum * old + (1 - momentum) * mean``
    after each step that shows the class, over all processes; then the features are pulled to it, as by
    :class:`SARLoss`. There is no projector and no anchor loss.

    Zhou et al., "Rethinking Semantic Segmentation: A Prototype View", CVPR 2022, eq. 12, with one prototype per class
    and the distance of :func:`sar_mm.ops.pull_loss`.

    Args:
        momentum: Share of the old prototypes.
        weight: Weight of the pull.
        kwargs: ``num_classes``, ``channels`` and ``ignore_index``, see :class:`FeatureHead`.

    The buffer ``semantic_anchors``, (K, C), holds the prototypes; zeros where a class has none yet, and pulls nothing.

    Example::

        head=dict(type='SARLinearClsHead', anchor_head=dict(type='PrototypeHead', momentum=0.99))
    """

    semantic_anchors: Tensor

    def __init__(self, *args, momentum: float = 0.999, weight: float = 0.1, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_probability('momentum', momentum, ends=True)
        check_weight('weight', weight)
        self.momentum = momentum
        self.weight = weight
        self.register_buffer('semantic_anchors', torch.zeros(self.num_classes, self.channels, dtype=torch.float32))

    def step(self, feature: Tensor, target: Tensor, classify: Classify, weight: Optional[Tensor]) -> Losses:
        prototypes = self.semantic_anchors
        if self.keeps_state:
            sums, number = class_sums(feature, target, self.num_classes, self.ignore_index, weight)
            mean = sums / number.clamp(min=torch.finfo(number.dtype).tiny)[:, None]
            old = prototypes.any(dim=1)
            moved = torch.where(old[:, None], torch.lerp(mean, prototypes, self.momentum), mean)
            prototypes = torch.where((number > 0)[:, None], moved, prototypes)
            self.semantic_anchors.copy_(prototypes)
        there = prototypes.any(dim=1).float()
        pull = pull_loss(feature, target, prototypes, self.ignore_index, gate=there, weight=weight)
        return dict(loss_pull=self.weight * pull, prototypes=there.mean())
