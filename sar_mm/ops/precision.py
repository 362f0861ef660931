import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a floating-point tensor as float32, or as it is where it is float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
