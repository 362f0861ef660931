from typing import Optional, Tuple

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from ..checks import check


def class_sums(
    feature: Tensor, target: Tensor, num_classes: int, ignore_index: Optional[int], weight: Optional[Tensor] = None
) -> Tuple[Tensor, Tensor]:
    """Return the sums of the features of each class over all processes, (K, C), and their weights, (K,), in float32.

    Args:
        feature: (N, C, ...).
        target: Class indices (N, ...), of which ``ignore_index`` and those outside [0, K) count for none, or class
            probabilities (N, K, ...), of which each share counts.
        num_classes: K.
        ignore_index: Label that is left out, or None.
        weight: Weights (N, ...); None: all are 1.
    """
    rows = feature.detach().float().movedim(1, -1).flatten(0, -2)
    share = one_hot(target, num_classes, ignore_index).movedim(1, -1).flatten(0, -2)
    if weight is not None:
        share = share * weight.flatten()[:, None]
    sums = torch.cat([share.t() @ rows, share.sum(dim=0)[:, None]], dim=1)
    all_reduce(sums)
    return sums[:, :-1], sums[:, -1]


def image_classes(
    feature: Tensor, target: Tensor, num_classes: int, ignore_index: Optional[int], weight: Optional[Tensor]
) -> Tensor:
    """Return the class indices of images, (N,), -1 for those that are left out.

    Raises:
        ValueError: Features or labels of pixels, or class probabilities, as mixup makes them.
    """
    is_index = feature.dim() == 2 and target.dim() == 1
    shapes = (tuple(feature.shape), tuple(target.shape))
    check(is_index, 'feature and target', shapes, 'features (N, C) and class indices (N,) of images')
    is_left_out = (target < 0) | (target >= num_classes)
    if ignore_index is not None:
        is_left_out = is_left_out | (target == ignore_index)
    if weight is not None:
        is_left_out = is_left_out | (weight == 0)
    return target.masked_fill(is_left_out, -1)


def one_hot(target: Tensor, num_classes: int, ignore_index: Optional[int]) -> Tensor:
    """Return class probabilities (N, K, ...) of class indices (N, ...), zeros where there is no class; float32."""
    if target.is_floating_point():
        return target.float()
    target = target.long()
    if ignore_index is not None:
        target = target.masked_fill(target == ignore_index, -1)
    classes = torch.arange(num_classes, device=target.device).view(-1, *[1] * (target.dim() - 1))
    return (target.unsqueeze(1) == classes).float()
