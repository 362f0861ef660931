"""The pull as GPU kernels in Triton, which comes with torch on Linux; optional."""

import os
import shutil

import torch
from torch import Tensor

from .pull_blocked import empty_like

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

# Triton needs a C compiler for the code that launches its kernels.
HAS_COMPILER = bool(os.environ.get('CC') or any(map(shutil.which, ('cc', 'gcc', 'clang'))))
MAX_SAMPLES = 65535  # of a launch
POSITIONS, CHANNELS = 64, 32  # of the tile that a program holds in registers


def takes(feature: Tensor, target: Tensor) -> bool:
    """Return whether the kernels apply: class indices, and float32, bfloat16 or float16 features on a supported GPU."""
    return (
        triton is not None
        and HAS_COMPILER
        and feature.is_cuda
        and feature.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and not target.is_floating_point()
        and (feature.dim() == 2 or len(feature) <= MAX_SAMPLES)
        and (torch.version.hip is not None or torch.cuda.get_device_capability(feature.device) >= (7, 0))
    )


def pull_value(feature: Tensor, target: Tensor, weight: Tensor, anchors: Tensor) -> Tensor:
    """See :func:`sar_mm.ops.pull_blocked.pull_value`."""
    feature, target, weight, anchors = _as_maps(feature, target, weight, anchors)
    samples, channels, positions = feature.shape
    blocks = triton.cdiv(positions, POSITIONS)
    sums = torch.zeros((samples, blocks), dtype=torch.float32, device=feature.device)
    if sums.numel():
        with torch.cuda.device_of(feature):  # Triton launches on the current device
            _value[(blocks, samples)](
                feature, target, weight, anchors, sums,
                channels, positions, *feature.stride(), *anchors.stride(), POSITIONS, CHANNELS,
            )  # fmt: skip
    return sums.sum()


def pull_gradient(feature: Tensor, target: Tensor, weight: Tensor, anchors: Tensor, scale: Tensor) -> Tensor:
    """See :func:`sar_mm.ops.pull_blocked.pull_gradient`."""
    found = empty_like(feature)
    feature, target, weight, anchors = _as_maps(feature, target, weight, anchors)
    samples, channels, positions = feature.shape
    out = _as_map(found)
    blocks = triton.cdiv(positions, POSITIONS)
    if out.numel():
        with torch.cuda.device_of(feature):  # Triton launches on the current device
            _gradient[(blocks, samples)](
                feature, target, weight, anchors, scale, out,
                channels, positions, *feature.stride(), *out.stride(), *anchors.stride(), POSITIONS, CHANNELS,
            )  # fmt: skip
    return found


def _as_maps(feature: Tensor, target: Tensor, weight: Tensor, anchors: Tensor) -> tuple:
    """Return (N, C, P), (N, P), (N, P) and anchors (K, C), with the anchors laid out in the order of access."""
    feature = _as_map(feature)
    target, weight = (each.contiguous().view(len(feature), feature.shape[2]) for each in (target, weight))
    # Neighbouring threads read neighbouring channels or positions: the same anchor, or the same channel of several.
    anchors = anchors.contiguous() if feature.stride(1) == 1 else anchors.t().contiguous().t()
    return feature, target, weight, anchors


def _as_map(tensor: Tensor) -> Tensor:
    """Return (N, C, ...) as a view (N, C, P), rows (N, C) as one sample (1, C, N)."""
    return tensor.t()[None] if tensor.dim() == 2 else tensor.flatten(2)


if triton is not None:

    @triton.jit
    def _value(
        feature, target, weight, anchors, sums,
        channels, positions, feature_n, feature_c, feature_p, anchors_k, anchors_c,
        POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
    ):  # fmt: skip
        n = tl.program_id(1).to(tl.int64)
        p = tl.program_id(0).to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)
        inside = p < positions
        k = tl.load(target + n * positions + p, mask=inside, other=0)
        w = tl.load(weight + n * positions + p, mask=inside, other=0.0)
        counts = (w != 0).to(tl.float32)  # as in pull_blocked
        total = tl.zeros((POSITIONS, CHANNELS), dtype=tl.float32)
        for start in range(0, channels, CHANNELS):
            c = start + tl.arange(0, CHANNELS).to(tl.int64)
            mask = inside[:, None] & (c < channels)[None, :]
            f = tl.load(feature + n * feature_n + p[:, None] * feature_p + c[None, :] * feature_c, mask=mask, other=0.0)
            s = tl.load(anchors + k[:, None] * anchors_k + c[None, :] * anchors_c, mask=mask, other=0.0)
            difference = counts[:, None] * (f.to(tl.float32) - s)
            total += difference * difference
        tl.store(sums + n * tl.num_programs(0) + tl.program_id(0), tl.sum(tl.sum(total, axis=1) * w, axis=0))

    @triton.jit
    def _gradient(
        feature, target, weight, anchors, scale, out,
        channels, positions, feature_n, feature_c, feature_p, out_n, out_c, out_p, anchors_k, anchors_c,
        POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
    ):  # fmt: skip
        n = tl.program_id(1).to(tl.int64)
        p = tl.program_id(0).to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)
        inside = p < positions
        k = tl.load(target + n * positions + p, mask=inside, other=0)
        w = tl.load(weight + n * positions + p, mask=inside, other=0.0) * tl.load(scale)
        for start in range(0, channels, CHANNELS):
            c = start + tl.arange(0, CHANNELS).to(tl.int64)
            mask = inside[:, None] & (c < channels)[None, :]
            f = tl.load(feature + n * feature_n + p[:, None] * feature_p + c[None, :] * feature_c, mask=mask, other=0.0)
            s = tl.load(anchors + k[:, None] * anchors_k + c[None, :] * anchors_c, mask=mask, other=0.0)
            value = w[:, None] * (f.to(tl.float32) - s)
            tl.store(
                out + n * out_n + p[:, None] * out_p + c[None, :] * out_c, value.to(out.dtype.element_ty), mask=mask
            )
