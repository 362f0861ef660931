from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pull_loss(
    feature: Tensor,
    target: Tensor,
    anchors: Tensor,
    ignore_index: Optional[int] = None,
    gate: Optional[Tensor] = None,
    class_balanced: bool = False,
) -> Tensor:
    """Mean squared distance of the features to the anchors of their classes, per channel, in float32.

    ``sum over valid i of ||f_i - S_{y_i}||^2 / (C * number of valid i)``; the gradient goes to the features only.

    Args:
        feature: (N, C), (N, C, P) or (N, C, H, W).
        target: Class indices, (N,), (N, P) or (N, H, W); ``ignore_index`` and anything outside [0, K) is not valid.
            Or, with (N, C) features, class probabilities (N, K): row i is pulled to the mixture ``T_i S``; a row of
            zeros is not valid.
        anchors: S, (K, C).
        ignore_index: A class index to leave out; None: none.
        gate: 1.0 for the classes that are pulled, 0.0 for the others, (K,); of mixtures, those of pulled classes only
            are pulled. The mean stays over all valid features. None: all are pulled.
        class_balanced: Take the mean within each class first, then over the classes present, so that rare classes pull
            as hard as common ones.

    Returns:
        A scalar; 0 where nothing is valid.

    Raises:
        ValueError: Shapes that do not belong together.
    """
    feature, anchors = feature.float(), anchors.detach().float()
    is_soft = target.is_floating_point()
    expected = (len(feature), len(anchors)) if is_soft else (len(feature), *feature.shape[2:])
    if tuple(target.shape) != expected or feature.shape[1] != anchors.shape[1]:
        raise ValueError(
            f'Expected a target of shape {expected} and anchors of {feature.shape[1]} channels for features of shape '
            f'{tuple(feature.shape)}, but got {tuple(target.shape)} and {tuple(anchors.shape)}'
        )
    if is_soft:
        target = target.float()
        centre = target @ anchors
        weight = (target.sum(dim=1) > 0).float()
    else:
        target = target.long()  # uint8 labels compared with 300 or -100 would wrap around
        valid = (target >= 0) & (target < len(anchors))
        if ignore_index is not None:
            valid = valid & (target != ignore_index)
        target = target * valid
        centre = anchors[target].movedim(-1, 1)
        weight = valid.float()
    total = weight.sum()
    if class_balanced:
        mass = target.sum(dim=0) if is_soft else _masses(target, weight, len(anchors))
        share = mass.clamp(min=torch.finfo(mass.dtype).tiny).reciprocal() * (mass > 0)
        weight = target @ share if is_soft else weight * share[target]
        total = (mass > 0).sum()
    if gate is not None:
        weight = weight * (((target > 0) & (gate == 0)).sum(dim=1) == 0 if is_soft else gate[target])
    distance = (feature - centre).square().mean(dim=1)
    return (distance * weight).sum() / total.clamp(min=1)


def _masses(target: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """Return the sum of the weights of every class, (K,)."""
    return weight.new_zeros(num_classes).index_add(0, target.flatten(), weight.flatten())


def nearest_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Bring label maps (N, H, W) to ``size`` by nearest-neighbour interpolation."""
    # interpolate() takes no integers on every device; float32 is exact up to 2 ** 24 classes.
    return F.interpolate(labels[:, None].float(), size=tuple(size), mode='nearest')[:, 0].to(labels.dtype)
