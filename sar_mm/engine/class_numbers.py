"""Checks of the number of classes in metrics and preprocessors of classifiers."""

import logging
from typing import Any, Dict, Sequence, Tuple

from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from torch import nn

from ..checks import UsageError


def check_topk(model: nn.Module, evaluators: Dict[str, Any]) -> None:
    """Raise a UsageError where the top-k accuracy of a classifier needs more classes than its head has.

    Args:
        model: A classifier, or a semi-supervised model with one.
        evaluators: Evaluators or their configs by their places in the config.
    """
    place, head = _head(model)
    if _is_head(head) and getattr(head, 'cal_acc', False):
        _check_topk(f'{place}.topk', head.topk, place, head)
    for name, evaluator in evaluators.items():
        _check_metrics(name, evaluator.metrics if isinstance(evaluator, Evaluator) else evaluator, place, head)


def check_preprocessor(model: nn.Module) -> None:
    """Raise a UsageError where labels become one-hot vectors of another number of classes than the head's.

    They do with batch augmentations and ``to_onehot``; otherwise ``num_classes`` is not read, and a warning is enough.
    """
    place, head = _head(model)
    preprocessor = getattr(getattr(model, 'student', model), 'data_preprocessor', None)
    number = getattr(preprocessor, 'num_classes', None)
    if not _is_head(head) or not number or number == head.num_classes:
        return
    message = f'data_preprocessor.num_classes={number}, but {place}.num_classes={head.num_classes}'
    if getattr(preprocessor, 'to_onehot', False):
        raise UsageError(f'{message}: one-hot labels need the same number, or None without batch augmentations')
    print_log(f'{message}: set the same number, which batch augmentations need', 'current', logging.WARNING)


def _head(model: nn.Module) -> Tuple[str, Any]:
    if hasattr(model, 'student'):
        return 'model.classifier.head', getattr(model.student, 'head', None)
    return 'model.head', getattr(model, 'head', None)


def _is_head(head: Any) -> bool:
    """Tell whether this is a head of mmpretrain that predicts a score for each of ``num_classes``."""
    return _is_kind(type(head), 'ClsHead') and isinstance(getattr(head, 'num_classes', None), int)


def _is_kind(kind: Any, name: str) -> bool:
    """Tell whether a class, or the name of one, is mmpretrain's ``name`` or derived from it."""
    if isinstance(kind, str):
        return kind in (name, f'mmpretrain.{name}')
    bases = getattr(kind, '__mro__', ())
    return any(base.__name__ == name and base.__module__.split('.')[0] == 'mmpretrain' for base in bases)


def _check_metrics(place: str, metrics: Any, head_place: str, head: Any) -> None:
    metrics = metrics if isinstance(metrics, (list, tuple)) else [metrics]
    for index, metric in enumerate(metrics):
        own = place if len(metrics) == 1 else f'{place}.{index}'
        options = metric if isinstance(metric, dict) else {'type': type(metric), **getattr(metric, '__dict__', {})}
        if _is_kind(options.get('type'), 'MultiTasksMetric'):
            heads, inner = getattr(head, 'task_heads', {}), options.get('task_metrics') or {}
            for task in (task for task in inner if task in heads):
                names = f'{own}.task_metrics.{task}', f'{head_place}.task_heads.{task}'
                _check_metrics(names[0], inner[task], names[1], heads[task])
        elif _is_kind(options.get('type'), 'Accuracy') and options.get('topk') is not None and _is_head(head):
            _check_topk(f'{own}.topk', options['topk'], head_place, head)


def _check_topk(place: str, topk: Any, head_place: str, head: Any) -> None:
    ks, number = topk if isinstance(topk, Sequence) else [topk], head.num_classes
    if any(k > number for k in ks):
        right = tuple(k for k in ks if k <= number) or (1,)
        raise UsageError(
            f'{place}={topk}: there is no top-{max(ks)} accuracy of {number} classes '
            f'({head_place}.num_classes={number}): set topk={right}'
        )
