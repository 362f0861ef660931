from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_weight
from ..models.feature_head import Classify, FeatureHead, Losses
from ..ops.precision import at_least_float32
from ..registry import MODELS
from .class_sums import image_classes


@MODELS.register_module()
class BalancedFeaturesHead(FeatureHead):
    """Classifies one real feature of every class in each step, where semantic anchors classify one anchor of each.

    What is left of the anchor loss if its gain is that of a class-balanced batch: the newest feature of every class, of
    this batch with its gradient, or else the stored one of an earlier batch of the process, goes through the task's
    classifier; the loss is the mean cross-entropy over the classes seen so far.

    Args:
        weight: Weight of the loss.
        kwargs: ``num_classes``, ``channels`` and ``ignore_index``, see :class:`FeatureHead`.

    The buffer ``newest``, (K, C), holds the newest features; zeros where a class was not seen yet.

    Raises:
        ValueError: Features or labels of pixels, or class probabilities, as mixup makes them.

    Example::

        head=dict(type='SARLinearClsHead', anchor_head=dict(type='BalancedFeaturesHead'))
    """

    newest: Tensor

    def __init__(self, *args, weight: float = 1.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_weight('weight', weight)
        self.weight = weight
        self.register_buffer('newest', torch.zeros(self.num_classes, self.channels, dtype=torch.float32))

    def step(self, feature: Tensor, target: Tensor, classify: Classify, weight: Optional[Tensor]) -> Losses:
        target = image_classes(feature, target, self.num_classes, self.ignore_index, weight)
        classes = torch.arange(self.num_classes, device=target.device)
        of_class = target[:, None] == classes
        position = torch.arange(1, len(target) + 1, device=target.device)[:, None]
        # A row of zeros in front: the largest position of a class that is not in the batch is 0.
        last = F.pad(of_class * position, (0, 0, 1, 0)).amax(dim=0)
        rows = F.pad(feature, (0, 0, 1, 0))[last]
        rows = torch.where((last > 0)[:, None], rows, self.newest.to(feature.dtype))
        seen = rows.detach().any(dim=1)
        if self.keeps_state:
            self.newest.copy_(rows.detach())
        is_half = feature.dtype in (torch.float16, torch.bfloat16)
        # Features of half precision come of autocast, where the classifier's weights are not, or of a model that is.
        with torch.autocast(feature.device.type, dtype=feature.dtype if is_half else None, enabled=is_half):
            logits = classify(rows)
        cost = F.cross_entropy(at_least_float32(logits), classes, reduction='none')
        return dict(loss_anchor=self.weight * (cost * seen).sum() / seen.sum().clamp(min=1))
