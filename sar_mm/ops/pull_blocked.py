"""The pull in blocks of PyTorch operators: for CPUs, and where there is no Triton."""

from typing import Iterator, Tuple

import torch
from torch import Tensor

Where = Tuple[int, slice, slice]  # sample, channels and positions of a block


def pull_value(feature: Tensor, target: Tensor, weight: Tensor, anchors: Tensor) -> Tensor:
    """Return ``sum_i w_i ||f_i - S_{y_i}||^2`` in the dtype of the anchors; for the arguments see ``pull_gradient``."""
    total = anchors.new_zeros(())
    # The difference is set to 0 where the weight is, before it is squared: 0 times an infinite square is NaN.
    counts = (weight != 0).to(weight.dtype)
    for (sample, _, positions), by_position, difference in _differences(feature, target, anchors):
        factor = _vector(counts, sample)[positions]
        squares = difference.mul_(factor[:, None] if by_position else factor).square_()
        total += torch.mv(squares.t() if by_position else squares, _vector(weight, sample)[positions]).sum()
    return total


def pull_gradient(feature: Tensor, target: Tensor, weight: Tensor, anchors: Tensor, scale: Tensor) -> Tensor:
    """Return ``scale * w_i (f_i - S_{y_i})`` in the feature's dtype, 0 where w_i is 0.

    Args:
        feature: (N, C, ...).
        target: Indices in [0, K), (N, ...), or probabilities (N, K, ...) of the anchors' dtype.
        weight: w, (N, ...), of the anchors' dtype.
        anchors: S, (K, C), float32 or float64.
        scale: A scalar.
    """
    weight = weight * scale
    found = empty_like(feature)
    current = None
    for (sample, channels, positions), by_position, difference in _differences(feature, target, anchors):
        if sample != current:
            current, out = sample, _matrix(found, sample)
        factor = _vector(weight, sample)[positions]
        difference.mul_(factor[:, None] if by_position else factor)
        block = out[channels, positions]
        (block.t() if by_position else block).copy_(difference)
    return found


def _differences(feature: Tensor, target: Tensor, anchors: Tensor) -> Iterator[Tuple[Where, bool, Tensor]]:
    """Yield f - S in blocks that fit into the cache, in a buffer that the next block overwrites.

    A block is a matrix (channels, positions), or (positions, channels) where ``by_position``, as it lies in memory.
    """
    by_position = _has_channels_last(feature)
    is_soft = target.is_floating_point()
    transposed = anchors.t() if by_position else anchors.t().contiguous()  # read where not by position
    size = _block_size(feature)
    buffer = anchors.new_empty(min(size + feature.shape[1], feature.numel()))
    for sample in range(1 if feature.dim() == 2 else len(feature)):
        matrix = _matrix(feature, sample)
        goals = _matrix(target, sample) if is_soft else _vector(target, sample)
        num_channels, num_positions = matrix.shape
        if by_position:
            step_p, step_c = max(size // num_channels, 1), num_channels
        else:
            step_p = max(min(num_positions, size), 1)
            step_c = max(size // step_p, 1)
        for c in range(0, num_channels, step_c):
            for p in range(0, num_positions, step_p):
                channels, positions = slice(c, min(c + step_c, num_channels)), slice(p, min(p + step_p, num_positions))
                block = matrix[channels, positions]
                goal = goals[..., positions]
                if by_position:
                    block = block.t()
                out = buffer[: block.numel()].view(block.shape)
                if is_soft:
                    torch.mm(*((goal.t(), anchors) if by_position else (transposed[channels], goal)), out=out)
                elif by_position:
                    torch.index_select(anchors, 0, goal, out=out)
                else:
                    torch.gather(transposed[channels], 1, goal.expand(block.shape), out=out)
                yield (sample, channels, positions), by_position, torch.sub(block, out, out=out)


def _has_channels_last(feature: Tensor) -> bool:
    return feature.dim() == 2 or feature.stride(1) == 1


def _block_size(feature: Tensor) -> int:
    """Return how many numbers a block has: a small part of the feature, which fits into the cache.

    Smaller blocks mean more kernel launches on a GPU, and more synchronization of threads on a CPU.
    """
    share, largest = (16, 2**20) if feature.device.type == 'cpu' else (128, 2**31)
    return min(max(feature.numel() // share, 2**14), largest)


def _matrix(tensor: Tensor, sample: int) -> Tensor:
    """Return a sample as a view (C, P), whatever the layout; rows (N, C) count as one sample."""
    return tensor.t() if tensor.dim() == 2 else tensor[sample].flatten(1)


def _vector(tensor: Tensor, sample: int) -> Tensor:
    """Return a sample of a map (N, ...), (P,); rows (N,) count as one sample."""
    return tensor if tensor.dim() == 1 else tensor[sample].flatten()


def empty_like(feature: Tensor) -> Tensor:
    """Return a dense tensor of the same shape, channels-last if the feature is."""
    if not _has_channels_last(feature):
        return torch.empty(feature.shape, dtype=feature.dtype, device=feature.device)
    shape = (feature.shape[0], *feature.shape[2:], feature.shape[1])
    return torch.empty(shape, dtype=feature.dtype, device=feature.device).movedim(-1, 1)
