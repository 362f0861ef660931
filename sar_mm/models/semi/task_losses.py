"""The losses of a model whose batch has labeled and unlabeled parts, or goes through it in several passes."""

from contextlib import contextmanager
from functools import partial
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..feature_head import FeatureHead, as_lists
from ..losses.counted import ClassCountLoss
from ..module_lists import as_modules


class Part(NamedTuple):
    """Images of a batch that have a loss of their own."""

    size: int  # number of images; 0 where the batch has no labeled ones
    weight: Optional[Tensor] = None  # of the images, (N,), for losses that have it as ``weight``
    inside: Optional[Tensor] = None  # share of the pixels that are no padding; None for labeled images
    factor: float = 1.0  # of the loss


@contextmanager
def split_losses(model: nn.Module, parts: Sequence[Part]) -> Iterator[List[List[Tensor]]]:
    """Compute the task losses of a model for each part of its batch.

    In this context the model's ``loss()``, called on all parts in one batch, returns the task losses of the first part;
    those of the others are collected in the lists that are yielded. Layers and semantic anchors see the whole batch.
    This replaces the ``forward`` of the loss modules, which the heads of both toolboxes call with predictions and
    targets of the batch: it splits the prediction, the target, ``weight`` and ``avg_factor``.

    Cross-entropies of pixels, mmseg's and those with class counts, are averaged as in UniMatch, whatever
    ``avg_non_ignore`` says: over the pixels of labeled images that are not ignored (with ``class_weight``, the
    weighted mean, as PyTorch's), and over those of unlabeled ones that are no padding.

    Args:
        model: A segmentor or classifier.
        parts: The first one is that of labeled images.
    """
    collected: List[List[Tensor]] = [[] for _ in parts[1:]]
    losses: Dict[nn.Module, Callable] = {
        loss: partial(_forward_of_parts, loss, loss.forward, parts, collected) for loss in loss_modules(model)
    }
    with replaced('forward', losses):
        yield collected


@contextmanager
def one_anchor_step(model: nn.Module, given: Dict[nn.Module, tuple], is_last: bool) -> Iterator[None]:
    """Make one step of each anchor head of several forward passes, so that anchors are classified and averaged once.

    In every pass but the last, the ``loss`` of an anchor head only adds what it is given to ``given`` and returns no
    losses; in the last, it is called with the features, targets and weights of all passes.

    Args:
        model: A model with or without anchor heads.
        given: Empty for the first pass, then the same one for all.
        is_last: Whether this is the last pass.
    """

    def loss_of_all(head, loss, feature, target, classify, weight=None) -> Dict[str, Tensor]:
        lists = given.setdefault(head, ([], [], []))
        for items, new in zip(lists, as_lists(feature, target, weight)):
            items += new
        features, targets, weights = lists
        return loss(features, targets, classify, weights) if is_last else {}

    heads = [module for module in model.modules() if isinstance(module, FeatureHead)]
    with replaced('loss', {head: partial(loss_of_all, head, head.loss) for head in heads}):
        yield


@contextmanager
def replaced(method: str, functions: Dict[nn.Module, Callable]) -> Iterator[None]:
    """Replace a method of some modules while the context lasts."""
    for module, function in functions.items():
        setattr(module, method, function)
    try:
        yield
    finally:
        for module in functions:
            delattr(module, method)


def loss_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Return the modules that heads have as ``loss...``: ``loss_decode``, ``loss_module`` and the like."""
    seen: Set[nn.Module] = set()
    for parent in model.modules():
        if parent in seen or isinstance(parent, FeatureHead):
            continue
        for name, child in parent.named_children():
            if name.startswith('loss'):
                losses = as_modules(child)
                yield from (loss for loss in losses if loss not in seen)
                for loss in losses:
                    seen.update(loss.modules())


def _forward_of_parts(loss, forward, parts, collected, pred: Tensor, target: Tensor, *args, **kwargs) -> Tensor:
    sizes = [part.size for part in parts]
    total = sum(sizes)
    if kwargs.get('reduction_override') is not None:  # a sampler that looks for hard pixels
        return forward(pred, target, *args, **kwargs)
    if len(pred) != total:
        raise RuntimeError(
            f'{type(loss).__name__} is called with {len(pred)} predictions for a batch of {total} images: a head that '
            'does not predict image by image cannot be trained with labeled and unlabeled images'
        )
    if args:  # what follows the target in every loss of both toolboxes
        kwargs['weight'], args = args[0], args[1:]
    results = []
    given, ignore_index = kwargs.get('weight'), kwargs.get('ignore_index', 255)
    weights = [None] * len(parts) if given is None else given.split(sizes)
    preds, targets = pred.split(sizes), target.split(sizes)  # one backward step for all, where slices have one each
    for part, pred_part, target_part, weight in zip(parts, preds, targets, weights):
        if part.size == 0:
            results.append(pred.new_zeros(()))
            continue
        options = dict(kwargs)
        if options.get('avg_factor') is not None:
            options['avg_factor'] = options['avg_factor'] * part.size / total
        elif _averages_pixels(loss, target_part):
            options['avg_factor'] = _pixels(loss, pred_part, target_part, part, ignore_index)
        elif part.inside is not None and pred.shape[2:] == target.shape[1:] and target.dim() == 3:
            # Some losses of regions look at ignored pixels, too: no label that is left out may change them.
            pred_part = pred_part.masked_fill((target_part == ignore_index)[:, None], 0)
        if part.weight is not None:
            weight = part.weight if weight is None else part.weight * weight
        if weight is not None:
            options['weight'] = weight
        if part.weight is not None and hasattr(loss, 'cum_samples'):  # SeesawLoss counts labels, whatever their weight
            kept = part.weight.nonzero().flatten()
            options['weight'] = weight[kept]
            pred_part, target_part = pred_part[kept], target_part[kept]
        results.append(part.factor * forward(pred_part, target_part, *args, **options))
    for losses, result in zip(collected, results[1:]):
        losses.append(result)
    return results[0]


def _averages_pixels(loss: nn.Module, target: Tensor) -> bool:
    is_mean = getattr(loss, 'reduction', 'mean') == 'mean'  # a sum is divided by nothing
    return target.dim() > 1 and is_mean and (hasattr(loss, 'avg_non_ignore') or isinstance(loss, ClassCountLoss))


def _pixels(loss: nn.Module, pred: Tensor, target: Tensor, part: Part, ignore_index: int) -> Tensor:
    """Return what the sum over the pixels of a part is divided by."""
    outputs = pred.shape[1] if getattr(loss, 'use_sigmoid', False) else 1  # a binary cross-entropy of each
    if part.inside is not None:
        return (part.inside * target.numel() * outputs).clamp(min=1)
    valid = target != ignore_index
    class_weight = getattr(loss, 'class_weight', None)
    if class_weight is None or outputs > 1 or isinstance(loss, ClassCountLoss):
        return (valid.sum() * outputs).clamp(min=1)
    weight_of_pixel = pred.new_tensor(class_weight, dtype=torch.float32)[target * valid] * valid
    return weight_of_pixel.sum().clamp(min=torch.finfo(torch.float32).tiny)


@contextmanager
def keep_running_stats(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch normalisation as they are, also in training mode."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    training = [norm for norm in norms if norm.training]
    for norm in training:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in training:
            norm.track_running_stats = True
