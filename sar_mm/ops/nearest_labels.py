from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Bring label maps (N, H, W), of any integer dtype, to ``size`` by nearest-neighbour interpolation."""
    # interpolate() takes no integers on every device, and a float copy of the labels may be larger than a feature map.
    rows, columns = (
        F.interpolate(
            torch.arange(old, device=labels.device, dtype=torch.float32)[None, None], size=new, mode='nearest'
        )
        for old, new in zip(labels.shape[1:], size)
    )
    return labels[:, rows.view(-1, 1).long(), columns.view(1, -1).long()]
