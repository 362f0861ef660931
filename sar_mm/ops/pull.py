import os
import warnings
from typing import List, Optional, Tuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from ..checks import check_choice
from . import pull_blocked, pull_triton

PATHS = ('auto', 'blocked', 'plain')
# torch.compile fuses the plain formula itself. torch.compiler.is_compiling is there from torch 2.1 on.
_is_compiling = getattr(getattr(torch, 'compiler', None), 'is_compiling', lambda: False)
# Errors of Triton kernels that did not compile or launch; after one, blocks are used.
_failed_kernels: List[Exception] = []


def pull_loss(
    feature: Tensor,
    target: Tensor,
    anchors: Tensor,
    ignore_index: Optional[int] = None,
    gate: Optional[Tensor] = None,
    class_balanced: bool = False,
    weight: Optional[Tensor] = None,
    sync_valid: bool = False,
) -> Tensor:
    """Mean squared distance of the features to the anchors of their classes, per channel.

    ``sum over valid i of ||f_i - S_{y_i}||^2 / (C * number of valid i)``, in float32, or float64 for such features.
    Only the features get a gradient; it can be differentiated again. For class indices and features that are contiguous
    or channels-last, each pass reads the feature once, and the gradient is the only tensor of its size that is made,
    unless it is differentiated again.

    The environment variable ``SAR_MM_PULL`` selects the implementation: ``auto``, Triton kernels on a GPU that runs
    them, else blocks; ``blocked``, always blocks; ``plain``, the plain formula, with several tensors of the feature's
    size.

    Args:
        feature: (N, C), (N, C, P) or (N, C, H, W), of any floating dtype.
        target: Class indices, (N,), (N, P) or (N, H, W); those outside [0, K) and ``ignore_index`` are not valid.
            Or class probabilities, (N, K), (N, K, P) or (N, K, H, W): the feature is pulled to ``T_i S``; rows of zeros
            are not valid.
        anchors: S, (K, C).
        ignore_index: A class index that is not valid. None: there is none.
        gate: (K,), 1.0 for the classes whose features are pulled, 0.0 for the others; a feature with probabilities is
            pulled if all its classes are. The mean stays over all valid features. None: all are pulled.
        class_balanced: Take the mean within each class, then over the classes present: rare classes count as much as
            common ones.
        weight: Weights of the features, not negative, in the shape of class indices; means become weighted means, and a
            feature of weight 0 is not valid. None: all are 1.
        sync_valid: Count the valid features of all processes, by a collective: the mean of the results over the
            processes is then the mean over the valid features of all.

    Returns:
        A scalar; 0 where nothing is valid.

    Raises:
        ValueError: Shapes that do not match, or another value of ``SAR_MM_PULL``.
    """
    path = os.environ.get('SAR_MM_PULL', 'auto')
    check_choice('SAR_MM_PULL', path, PATHS)
    anchors = anchors.detach().to(torch.float64 if feature.dtype == torch.float64 else torch.float32)
    places = (len(feature), *feature.shape[2:])
    is_soft = target.is_floating_point()
    expected = (len(feature), len(anchors), *feature.shape[2:]) if is_soft else places
    if tuple(target.shape) != expected or feature.shape[1] != anchors.shape[1]:
        raise ValueError(
            f'Expected a target of shape {expected} and anchors of {feature.shape[1]} channels for features of shape '
            f'{tuple(feature.shape)}, but got {tuple(target.shape)} and {tuple(anchors.shape)}'
            + (' (a target of a floating dtype is class probabilities; class indices are integers)' if is_soft else '')
        )
    if gate is not None and tuple(gate.shape) != (len(anchors),):
        raise ValueError(f'Expected a gate of shape {(len(anchors),)}, but got {tuple(gate.shape)}')
    if weight is not None and tuple(weight.shape) != places:
        raise ValueError(f'Expected weights of shape {places}, but got {tuple(weight.shape)}')
    with torch.autocast(feature.device.type, enabled=False):
        target, weight = _shares(target, weight, anchors, ignore_index, gate, class_balanced, sync_valid)
        if path == 'plain' or _is_compiling():
            return (_differences(feature, target, weight, anchors).square().sum(dim=1) * weight).sum()
        return _Pull.apply(feature, target, weight, anchors, path)


def _shares(
    target: Tensor,
    weight: Optional[Tensor],
    anchors: Tensor,
    ignore_index: Optional[int],
    gate: Optional[Tensor],
    class_balanced: bool,
    sync_valid: bool,
) -> Tuple[Tensor, Tensor]:
    """Return targets without invalid indices, and the factor of each feature's squared distance in the loss."""
    num_classes, num_channels = anchors.shape
    is_soft = target.is_floating_point()
    if is_soft:
        target = target.to(anchors.dtype)
        valid = target.sum(dim=1) > 0
    else:
        target = target.long()  # comparing uint8 with 300 or -100 would wrap around
        valid = (target >= 0) & (target < num_classes)
        if ignore_index is not None:
            valid = valid & (target != ignore_index)
        target = target * valid
    weight = valid.to(anchors.dtype) if weight is None else weight.detach().to(anchors.dtype) * valid
    if class_balanced:
        if is_soft:
            mass = torch.einsum('nk...,n...->k', target, weight)
        else:  # in float64: a float32 sum of ones stops at 2 ** 24
            mass = weight.new_zeros(num_classes, dtype=torch.float64)
            mass = mass.index_add(0, target.flatten(), weight.flatten().double())
        processes = _sum_over_processes(mass) if sync_valid else 1
        mass = mass.to(weight.dtype)
        share = mass.clamp(min=torch.finfo(mass.dtype).tiny).reciprocal() * (mass > 0)
        weight = weight * (torch.einsum('nk...,k->n...', target, share) if is_soft else share[target])
        total = (mass > 0).sum().to(mass.dtype)
    else:
        total = weight.sum()
        processes = _sum_over_processes(total) if sync_valid else 1
    if gate is not None:
        shut = gate == 0
        if is_soft:
            weight = weight * ((target > 0) & shut.view(-1, *[1] * (target.dim() - 2))).any(dim=1).logical_not()
        else:
            weight = weight * gate.to(weight.dtype)[target]
    return target, weight * (processes / num_channels / total.clamp(min=torch.finfo(total.dtype).tiny))


def _sum_over_processes(number: Tensor) -> int:
    """Sum up a tensor over all processes, in place, and return how many there are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    dist.all_reduce(number)
    return dist.get_world_size()


def _differences(feature: Tensor, target: Tensor, weight: Tensor, anchors: Tensor) -> Tensor:
    """Return f - S in the dtype of the anchors, and 0 where the weight is 0: 0 times an infinite square is NaN."""
    if target.is_floating_point():
        centre = torch.einsum('nk...,kc->nc...', target, anchors)
    else:
        centre = anchors[target].movedim(-1, 1)
    return (feature.to(anchors.dtype) - centre) * (weight != 0).unsqueeze(1)


class _Pull(Function):
    """``sum_i w_i ||f_i - S_{y_i}||^2``, with a gradient for the feature only."""

    @staticmethod
    def forward(ctx, feature: Tensor, target: Tensor, weight: Tensor, anchors: Tensor, path: str) -> Tensor:
        ctx.path = path
        ctx.save_for_backward(feature, target, weight, anchors)
        return _run('pull_value', path, feature, target, weight, anchors)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        feature, target, weight, anchors = ctx.saved_tensors
        with torch.autocast(feature.device.type, enabled=False):
            if torch.is_grad_enabled():  # create_graph=True
                scale = (2 * grad * weight).unsqueeze(1)
                found = (scale * _differences(feature, target, weight, anchors)).to(feature.dtype)
            else:
                found = _run('pull_gradient', ctx.path, feature, target, weight, anchors, 2 * grad)
        return found, None, None, None, None


def _run(name: str, path: str, feature: Tensor, target: Tensor, *args: Tensor) -> Tensor:
    """Call ``name`` of :mod:`.pull_triton` where that applies and works, else of :mod:`.pull_blocked`."""
    if path == 'auto' and not _failed_kernels and pull_triton.takes(feature, target):
        try:
            return getattr(pull_triton, name)(feature, target, *args)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # of Triton, its compiler, the driver
            _failed_kernels.append(error)
            warnings.warn(
                f'the Triton kernel of the pull failed ({type(error).__name__}: {error}), and blocks of PyTorch '
                'operators are used from now on: slower, with the same result; SAR_MM_PULL=blocked in the environment '
                'chooses them from the start',
                stacklevel=2,
            )
    return getattr(pull_blocked, name)(feature, target, *args)
