from typing import Callable, Dict, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check, check_weight
from ..models.feature_head import FeatureHead
from ..ops.precision import at_least_float32
from ..registry import MODELS


@MODELS.register_module()
class BalancedFeaturesHead(FeatureHead):
    """Classifies one real feature of every class in each step, where semantic anchors classify one anchor of each.

    What is left of the anchor loss if its gain is that of a class-balanced batch: the newest feature of every class, of
    this batch with its gradient, or else the stored one of an earlier batch of the process, goes through the task's
    classifier; the loss is the mean cross-entropy over the classes seen so far.

    Args:
        num_classes: K.
        channels: C.
        weight: Weight of the loss.
        ignore_index: Label that is left out.

    The buffer ``newest``, (K, C), holds the newest features; zeros where a class was not seen yet.

    Raises:
        ValueError: Features or labels of pixels, or class probabilities, as mixup makes them.

    Example::

        head=dict(type='SARLinearClsHead', anchor_head=dict(type='BalancedFeaturesHead'))
    """

    def __init__(self, num_classes: int, channels: int, weight: float = 1.0, ignore_index: Optional[int] = 255) -> None:
        super().__init__(num_classes, channels, ignore_index)
        check_weight('weight', weight)
        self.weight = weight
        self.register_buffer('newest', torch.zeros(num_classes, channels, dtype=torch.float32))

    def step(
        self, feature: Tensor, target: Tensor, classify: Callable[[Tensor], Tensor], weight: Optional[Tensor]
    ) -> Dict[str, Tensor]:
        is_index = feature.dim() == 2 and target.dim() == 1
        shapes = (tuple(feature.shape), tuple(target.shape))
        check(is_index, 'feature and target', shapes, 'features (N, C) and class indices (N,) of images')
        classes = torch.arange(self.num_classes, device=target.device)
        of_class = target[:, None] == classes
        if self.ignore_index is not None:
            of_class = of_class & (target != self.ignore_index)[:, None]
        if weight is not None:
            of_class = of_class & (weight > 0)[:, None]
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
