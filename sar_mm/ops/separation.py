from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def pairwise_cosine(anchors: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the largest and the mean cosine over all pairs of different anchors.

    Args:
        anchors: (K, C); a zero row has cosine 0 with every other.

    Returns:
        Two scalars.
    """
    unit = F.normalize(anchors, dim=1)
    cosine = unit @ unit.t()
    same = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
    pairs = len(anchors) * (len(anchors) - 1)
    return cosine.masked_fill(same, -1).max(), cosine.masked_fill(same, 0).sum() / pairs
