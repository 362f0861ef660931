from types import ModuleType
from typing import Dict, Optional, Tuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from . import pull_blocked, pull_triton

# torch.compile makes one kernel each way of the plain formula; before torch 2.1 there is no such question.
_is_compiling = getattr(getattr(torch, 'compiler', None), 'is_compiling', lambda: False)


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

    ``sum over valid i of ||f_i - S_{y_i}||^2 / (C * number of valid i)``, in float32, or float64 for such features. The
    gradient goes to the features only, and once: there is none of second order. With class indices and features that
    are contiguous, or so with channels last, the feature is read once in the forward and once in the backward pass,
    which writes the gradient; nothing else of its size is made.

    Args:
        feature: (N, C), (N, C, P) or (N, C, H, W), of any floating dtype.
        target: Class indices, (N,), (N, P) or (N, H, W); ``ignore_index`` and anything outside [0, K) is not valid.
            Or class probabilities (N, K), (N, K, P) or (N, K, H, W): a feature is pulled to the mixture ``T_i S``; one
            of zeros is not valid.
        anchors: S, (K, C).
        ignore_index: A class index to leave out; None: none.
        gate: 1.0 for the classes that are pulled, 0.0 for the others, (K,); of mixtures, those of pulled classes only
            are pulled. The mean stays over all valid features. None: all are pulled.
        class_balanced: Take the mean within each class first, then over the classes present, so that rare classes pull
            as hard as common ones.
        weight: Weights of the features, of the shape of class indices, not negative; the means become weighted ones,
            and a weight of 0 is like not being valid. None: all are 1.
        sync_valid: Count the valid features of all processes, by a collective: the mean of this value over the
            processes is then the mean over all valid features, wherever they are.

    Returns:
        A scalar; 0 where nothing is valid.

    Raises:
        ValueError: Shapes that do not belong together.
    """
    dtype = torch.float64 if feature.dtype == torch.float64 else torch.float32
    anchors = anchors.detach().to(dtype)
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
        if _is_compiling():
            centre = torch.einsum('nk...,kc->nc...', target, anchors) if is_soft else anchors[target].movedim(-1, 1)
            difference = (feature.to(dtype) - centre) * (weight != 0).unsqueeze(1)  # as in pull_blocked
            return (difference.square().sum(dim=1) * weight).sum()
        return _Pull.apply(feature, target, weight, anchors, getattr(feature.grad_fn, 'pulls', None))


def join_pulls(feature: Tensor) -> Tensor:
    """Return the feature such that pulls on it add their gradient to that of its other uses in one pass.

    Otherwise each is a tensor of the feature's size, the pull's is there while the task loss goes backward, and
    autograd reads both to add them. Pass what is returned to the task classifier and to :func:`pull_loss`. The sum is
    the gradient of ``feature``; that of what is returned, as a hook on it would see it, is without the pull. There is
    no gradient of second order through it.
    """
    if _is_compiling() or not (feature.requires_grad and torch.is_grad_enabled()):
        return feature
    return _Join.apply(feature)


def _shares(
    target: Tensor,
    weight: Optional[Tensor],
    anchors: Tensor,
    ignore_index: Optional[int],
    gate: Optional[Tensor],
    class_balanced: bool,
    sync_valid: bool,
) -> Tuple[Tensor, Tensor]:
    """Return targets of which all are valid, and the factor of every feature's squared distance in the loss."""
    num_classes, num_channels = anchors.shape
    is_soft = target.is_floating_point()
    if is_soft:
        target = target.to(anchors.dtype)
        valid = target.sum(dim=1) > 0
    else:
        target = target.long()  # uint8 labels compared with 300 or -100 would wrap around
        valid = (target >= 0) & (target < num_classes)
        if ignore_index is not None:
            valid = valid & (target != ignore_index)
        target = target * valid
    weight = valid.to(anchors.dtype) if weight is None else weight.detach().to(anchors.dtype) * valid
    if class_balanced:
        if is_soft:
            mass = torch.einsum('nk...,n...->k', target, weight)
        else:  # in float64: adding ones, float32 stops at 2 ** 24
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


def _backend(feature: Tensor, target: Tensor) -> ModuleType:
    return pull_triton if pull_triton.takes(feature, target) else pull_blocked


class _Pull(Function):
    """``sum_i w_i ||f_i - S_{y_i}||^2``, with a gradient for the feature only."""

    @staticmethod
    def forward(
        ctx, feature: Tensor, target: Tensor, weight: Tensor, anchors: Tensor, pulls: Optional[Dict[int, tuple]]
    ) -> Tensor:
        ctx.pulls = pulls
        ctx.save_for_backward(*((feature,) if pulls is None else ()), target, weight, anchors)
        return _backend(feature, target).pull_value(feature, target, weight, anchors)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        *feature, target, weight, anchors = ctx.saved_tensors
        if ctx.pulls is None:
            return _gradient(*feature, target, weight, anchors, grad, None), None, None, None, None
        # Autograd comes to _Join after all that used its feature.
        ctx.pulls[id(ctx)] = (target, weight, anchors, grad)
        return None, None, None, None, None


class _Join(Function):
    """The identity, whose backward pass adds the gradients of the pulls on its output."""

    @staticmethod
    def forward(ctx, feature: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(feature)
        ctx.pulls = {}  # pull_loss() finds it as `feature.grad_fn.pulls`
        return feature.view_as(feature)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Optional[Tensor]) -> Optional[Tensor]:
        (feature,) = ctx.saved_tensors
        while ctx.pulls:
            grad = _gradient(feature, *ctx.pulls.popitem()[1], grad)
        return grad


def _gradient(
    feature: Tensor, target: Tensor, weight: Tensor, anchors: Tensor, scale: Tensor, grad: Optional[Tensor]
) -> Tensor:
    with torch.autocast(feature.device.type, enabled=False):
        return _backend(feature, target).pull_gradient(feature, target, weight, anchors, 2 * scale, grad)
