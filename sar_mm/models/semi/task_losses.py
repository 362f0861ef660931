"""The task losses of one batch, part by part, whatever the model is."""

from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Iterator, List, Optional, Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..anchor_head import SemanticAnchorHead


@contextmanager
def split_losses(
    model: nn.Module, sizes: Sequence[int], weights: Sequence[Optional[Tensor]]
) -> Iterator[List[List[Tensor]]]:
    """Let the loss modules of a model see the parts of its batch one by one.

    A model whose ``loss()`` is called in this context on the parts stacked to one batch returns the task losses of the
    first part, as if there were no others; those of the others are collected in the lists that are yielded. The heads,
    batch normalisation and semantic anchors see the whole batch. This takes hold of the loss modules, which every head
    of both toolboxes calls with predictions and targets of the batch, because the heads' own loss methods differ.

    Args:
        model: A segmentor or classifier.
        sizes: Number of images in every part; 0 for a first part that is not there.
        weights: Of every part, weights of its images (N,), for losses that have them as ``weight``, or None.
    """
    collected: List[List[Tensor]] = [[] for _ in sizes[1:]]
    losses = list(loss_modules(model))
    for loss in losses:
        loss.forward = partial(_forward_of_parts, type(loss).__name__, loss.forward, sizes, weights, collected)
    try:
        yield collected
    finally:
        for loss in losses:
            del loss.forward


def loss_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Return the modules that heads keep as ``loss...``: ``loss_decode``, ``loss_module`` and the like."""
    seen = set()
    for parent in model.modules():
        if parent in seen or isinstance(parent, SemanticAnchorHead):
            continue
        for name, child in parent.named_children():
            if name.startswith('loss'):
                losses = list(child) if isinstance(child, nn.ModuleList) else [child]
                yield from (loss for loss in losses if loss not in seen)
                for loss in losses:
                    seen.update(loss.modules())


def _forward_of_parts(
    name, forward, sizes, weights, collected, pred: Tensor, target: Tensor, *args, **kwargs
) -> Tensor:
    total = sum(sizes)
    if kwargs.get('reduction_override') is not None:  # a sampler that looks for hard pixels
        return forward(pred, target, *args, **kwargs)
    if len(pred) != total:
        raise RuntimeError(
            f'{name} is called with {len(pred)} predictions for a batch of {total} images: a head that does not '
            'predict image by image cannot be trained with labelled and unlabelled images'
        )
    ends = list(accumulate(sizes))
    preds = pred.split(list(sizes))  # one backward step for all, where slices would have one each
    results = []
    for part, end, weight, size in zip(preds, ends, weights, sizes):
        rows = slice(end - size, end)

        def take(value, rows=rows):
            return value[rows] if isinstance(value, Tensor) and value.dim() and len(value) == total else value

        if size == 0:
            results.append(pred.new_zeros(()))
            continue
        options = {key: take(value) for key, value in kwargs.items()}
        if options.get('avg_factor') is not None:
            options['avg_factor'] = options['avg_factor'] * size / total
        if weight is not None:
            given = options.get('weight')
            options['weight'] = weight if given is None else weight * given
        results.append(forward(part, take(target), *map(take, args), **options))
    for losses, result in zip(collected, results[1:]):
        losses.append(result)
    return results[0]


@contextmanager
def keep_running_stats(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation in training mode use the statistics of the batch without averaging them in."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    training = [norm for norm in norms if norm.training]
    for norm in training:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in training:
            norm.track_running_stats = True
