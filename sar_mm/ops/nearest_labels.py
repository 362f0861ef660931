from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Resize label maps (N, H, W), of any integer dtype, to ``size`` by nearest-neighbour interpolation."""
    # interpolate() does not support integers on every device, and a float copy of the labels may exceed a feature map.
    # So the indices are interpolated.
    rows, columns = (
        F.interpolate(
            torch.arange(old, device=labels.device, dtype=torch.float32)[None, None], size=new, mode='nearest'
        )
        for old, new in zip(labels.shape[1:], size)
    )
    return labels[:, rows.view(-1, 1).long(), columns.view(1, -1).long()]
