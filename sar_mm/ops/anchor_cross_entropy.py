from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def anchor_cross_entropy(logits: Tensor, confidence_threshold: Optional[float] = 0.9) -> Tensor:
    """Cross-entropy of the anchors, weighted by itself: ``sum_U c^2 / sum_U c``.

    c_k is the cross-entropy of anchor k, and U the anchors whose probability of their own class is at most
    ``confidence_threshold``. The weights are part of the gradient.

    Args:
        logits: (K, K), any floating dtype; row k has the task classifier's logits of the anchor of class k.
        confidence_threshold: Anchors with a higher probability of their class are excluded. None: all anchors count.

    Returns:
        A scalar, float32, or float64 for such logits; 0 where U is empty.
    """
    return self_weighted_mean(anchor_costs(logits), confidence_threshold)


def anchor_costs(logits: Tensor, first: int = 0) -> Tensor:
    """Return the cross-entropies of anchors, (B,), float32, or float64 for such logits.

    Args:
        logits: (B, K), any floating dtype: the task classifier's logits of the anchors of B consecutive classes.
        first: The first of these classes.
    """
    return -F.log_softmax(at_least_float32(logits), dim=1).diagonal(first)


def self_weighted_mean(cost: Tensor, confidence_threshold: Optional[float] = 0.9) -> Tensor:
    """Return :func:`anchor_cross_entropy` for the cross-entropies of all anchors, (K,)."""
    cost = at_least_float32(cost)
    if confidence_threshold is not None:
        # A product rather than a selection: no shape depends on a value, and a NaN stays a NaN.
        cost = cost * (cost.detach().neg().exp() <= confidence_threshold)
    total = cost.sum()
    # Divided before multiplied: squares overflow from 1e19 on.
    return (cost * (cost / torch.where(total > 0, total, torch.ones_like(total)))).sum()


def anchor_scores(logits: Tensor, first: int = 0) -> Tuple[Tensor, Tensor]:
    """Return which anchors are classified correctly, and the probabilities of their own classes.

    Args:
        logits: See :func:`anchor_costs`.
        first: See :func:`anchor_costs`.

    Returns:
        A boolean tensor, (B,), and the probabilities, (B,), float32, or float64 for such logits.
    """
    logits = at_least_float32(logits)
    right = logits.argmax(dim=1) == torch.arange(first, first + len(logits), device=logits.device)
    return right, logits.softmax(dim=1).diagonal(first)
