from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def anchor_cross_entropy(logits: Tensor, confidence: Optional[float] = 0.9) -> Tensor:
    """Cross-entropy of the anchors, each weighted by its share of the whole: ``sum_U c^2 / sum_U c``.

    c_k is the cross-entropy of anchor k and U the anchors whose probability of their own class is at most
    ``confidence``. The gradient runs through the weights too.

    Args:
        logits: (K, K), row k the task classifier's answer to the anchor of class k, of any floating dtype.
        confidence: Anchors above it are left alone. None: none is.

    Returns:
        A scalar, float32, or float64 for such logits; 0 where U is empty.
    """
    logits = at_least_float32(logits)
    cost = -F.log_softmax(logits, dim=1).diagonal()
    if confidence is not None:
        # Multiplied rather than selected: no size depends on a value, and a NaN is not hidden.
        cost = cost * (cost.detach().neg().exp() <= confidence)
    total = cost.sum()
    # Shares rather than squares, which are infinite from 1e19 on.
    return (cost * (cost / torch.where(total > 0, total, torch.ones_like(total)))).sum()


def anchor_scores(logits: Tensor) -> Tuple[Tensor, Tensor]:
    """Tell which anchors are classified right, and with which probability of their own class.

    Args:
        logits: (K, K), row k the task classifier's answer to the anchor of class k, of any floating dtype.

    Returns:
        A boolean tensor, (K,), and the probabilities, (K,), float32, or float64 for such logits.
    """
    logits = at_least_float32(logits)
    right = logits.argmax(dim=1) == torch.arange(len(logits), device=logits.device)
    return right, logits.softmax(dim=1).diagonal()
