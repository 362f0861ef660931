"""Checks of how the parts of a run fit together, before its first step."""

import os.path as osp
from inspect import signature
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import OPTIMIZERS
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.nn import SyncBatchNorm

from ..checks import UsageError, check_loss_of_one_output, did_you_mean
from ..class_counts import ADD_COUNTS
from .batches import check_batches
from .class_numbers import check_preprocessor, check_topk
from .class_order import check_class_order, check_order_of_checkpoint, check_order_of_counts
from .safe_checkpoints import read_checkpoint
from .unlabeled import check_unlabeled

# Heads whose classes are not those of the data: edges, and depth.
_OTHER_CLASSES = ('STDCHead', 'VPDDepthHead')


class Head(NamedTuple):
    """A head that classifies, and its place in the config."""

    place: str
    module: nn.Module


def check_run(runner: Runner) -> None:
    """Check that model, data, losses, metrics and hooks of a training fit together; build the loops for that.

    ``check_classes=False`` in a config leaves out the comparison of numbers and names of classes. A FlexibleRunner,
    which builds its model later, is not checked.

    Raises:
        UsageError: They do not fit: the training would end later, or its scores would be meaningless.
    """
    model = unwrapped(runner.model)
    if not isinstance(model, nn.Module) or runner.train_loop is None:
        return
    check_optimizer(runner.cfg.get('optim_wrapper'))
    check_load_from(runner)
    check_anchor_files(runner, model)
    check_sync_bn(model)
    heads = list(classifying_heads(model))
    loops = dict(train_dataloader=runner.train_loop, val_dataloader=runner.val_loop)
    for place, loop in loops.items():
        check_batches(loop, place)
    loaders = {place: loop.dataloader for place, loop in loops.items() if hasattr(loop, 'dataloader')}
    datasets = {f'{place}.dataset': loader.dataset for place, loader in loaders.items()}
    for place, dataset in datasets.items():
        check_unlabeled(dataset, place)
    if runner.cfg.get('check_classes', True):
        for place, dataset in datasets.items():
            check_classes(heads, dataset, place)
        check_class_order(datasets)
        check_order_of_counts(runner.hooks, datasets)
    check_preprocessor(model)
    val_evaluator = getattr(runner.val_loop, 'evaluator', None)
    check_topk(model, dict(val_evaluator=val_evaluator, test_evaluator=runner._test_evaluator))
    check_class_weights(heads)
    check_losses(heads, runner.hooks)
    check_metrics(runner.val_loop, runner.hooks, heads)
    check_checkpoint_hook(runner.hooks)


def check_test(runner: Runner, path: str) -> None:
    """Check that data, metrics and the checkpoint at ``path`` fit together for a test; build its loop for that.

    Raises:
        UsageError: They do not fit: the test would end without scores, or with those of other classes.
    """
    loop = runner.test_loop
    if not hasattr(loop, 'dataloader'):
        return
    if runner.cfg.get('check_classes', True):
        place, dataset = 'test_dataloader.dataset', loop.dataloader.dataset
        check_class_order({place: dataset})
        check_order_of_counts(runner.hooks, {place: dataset})
        check_order_of_checkpoint(read_checkpoint(path), dataset, place)
    check_topk(unwrapped(runner.model), dict(test_evaluator=getattr(loop, 'evaluator', None)))


def unwrapped(model: Any) -> Any:
    """Return the model within wrappers for several processes and for test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_optimizer(wrapper: Any) -> None:
    """Raise a UsageError unless the optimizer is a dict of a registered type: mmengine's error would name neither."""
    if not isinstance(wrapper, dict) or 'optimizer' not in wrapper or 'constructor' in wrapper:
        return
    optimizer = wrapper['optimizer']
    if isinstance(optimizer, str):
        raise UsageError(f"optim_wrapper.optimizer={optimizer!r} is no dict, such as dict(type='SGD', lr=0.01)")
    kind = optimizer.get('type') if isinstance(optimizer, dict) else None
    with OPTIMIZERS.switch_scope_and_registry(None) as registry:
        if isinstance(kind, str) and registry.get(kind) is None:
            hint = did_you_mean(kind, [*registry.module_dict, *OPTIMIZERS.module_dict])
            raise UsageError(f'optim_wrapper.optimizer.type={kind!r} is not registered{hint}')


def check_load_from(runner: Runner) -> None:
    """Raise a UsageError where there is no file at ``load_from``; addresses (``https://``) are not checked."""
    path = runner._load_from
    if isinstance(path, str) and '://' not in path and not osp.exists(osp.expanduser(path)):
        raise UsageError(f'load_from={path!r}: there is no such checkpoint; name another one, or None')


def check_anchor_files(runner: Runner, model: nn.Module) -> None:
    """Raise a UsageError where the file of predefined anchors is missing and no checkpoint is loaded."""
    for name, module in model.named_modules():
        missing = getattr(module, 'missing_file', None)
        if missing is not None and not runner._resume and runner._load_from is None:
            raise UsageError(f'model.{name}.anchors.path: {missing}')


def check_resumed_anchors(model: nn.Module, checkpoint: dict) -> None:
    """Raise a UsageError where a run is resumed with other predefined anchors than those of its checkpoint."""
    model = unwrapped(model)
    weights = checkpoint.get('state_dict', {})
    for name, module in model.named_modules():
        anchors = weights.get(f'{name}.anchors')
        if anchors is None or not hasattr(module, 'compare_anchors'):
            continue
        difference = module.compare_anchors(anchors)
        if difference is not None:
            raise UsageError(
                f'model.{name}.anchors: {difference}. To resume, set those of the checkpoint; to change them, start a '
                'new run from its weights with load_from, which restarts S'
            )


def check_sync_bn(model: nn.Module) -> None:
    """Raise a UsageError where a model on a CPU has SyncBN, which PyTorch runs on accelerators only."""
    for name, module in model.named_modules():
        if isinstance(module, SyncBatchNorm) and module.weight is not None and module.weight.device.type == 'cpu':
            raise UsageError(
                f"model.{name} is of type SyncBN, which does not run on CPUs: set norm_cfg=dict(type='BN') in "
                f'model.{name.split(".")[0]}, and wherever else it is SyncBN'
            )


def classifying_heads(model: Any) -> Iterator[Head]:
    """Yield the heads of a segmentor or classifier that have a ``num_classes``, and of the student of a semi model."""
    place = 'model'
    if hasattr(model, 'student'):
        model = model.student
        place = 'model.segmentor' if hasattr(model, 'decode_head') else 'model.classifier'
    for name in ('decode_head', 'auxiliary_head', 'head'):
        head = getattr(model, name, None)
        if isinstance(head, nn.ModuleList):
            parts = [Head(f'{place}.{name}.{index}', each) for index, each in enumerate(head)]
        else:
            parts = [Head(f'{place}.{name}', head)]
        for part in parts:
            kinds = {base.__name__ for base in type(part.module).__mro__}
            if isinstance(getattr(part.module, 'num_classes', None), int) and kinds.isdisjoint(_OTHER_CLASSES):
                yield part


def check_classes(heads: List[Head], dataset: Any, place: str) -> None:
    """Raise a UsageError where a head has another number of classes than a data set that names its own.

    A head of one output fits one class and two. With ``reduce_zero_label``, the data may name class 0 or not.
    """
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if classes is None or len(classes) == 0:
        return
    number = len(classes)
    allowed = {number, number - 1} if getattr(dataset, 'reduce_zero_label', False) else {number}
    for head in heads:
        own = head.module.num_classes
        is_binary = own == 1 or own == 2 and getattr(head.module, 'out_channels', own) == 1
        if own not in allowed and not is_binary:
            raise UsageError(
                f'{head.place}.num_classes={own}, but the {type(dataset).__name__} of {place} has {number} classes '
                f'({", ".join(map(str, classes[:3]))}{", ..." if number > 3 else ""}): set num_classes={number}, or '
                'other classes in the metainfo of the data; if they are to differ, set check_classes=False'
            )


def check_class_weights(heads: List[Head]) -> None:
    """Raise a UsageError where a loss has counts or weights of another number of classes than its head."""
    for head in heads:
        own = head.module.num_classes
        for place, loss in _losses(head):
            if getattr(head.module, 'out_channels', own) == 1:
                check_loss_of_one_output(place, loss)
            for option in ('class_counts', 'class_weight'):
                values = getattr(loss, option, None)
                if hasattr(values, '__len__') and len(values) not in (own, getattr(head.module, 'out_channels', own)):
                    raise UsageError(
                        f'{place}.{option} has {len(values)} entries, but {head.place}.num_classes={own}: give one for '
                        'each class'
                    )


def _losses(head: Head) -> Iterator[Tuple[str, nn.Module]]:
    """Yield the losses of a head with their places in the config."""
    for attribute, name in (('loss_decode', 'loss_decode'), ('loss_module', 'loss')):
        loss: Any = getattr(head.module, attribute, None)
        if isinstance(loss, nn.ModuleList):
            yield from ((f'{head.place}.{name}.{index}', each) for index, each in enumerate(loss))
        elif loss is not None:
            yield f'{head.place}.{name}', loss
    anchor_head: Any = getattr(head.module, 'anchor_head', None)
    parts: List[Any] = list(anchor_head.children()) if isinstance(anchor_head, nn.ModuleDict) else [anchor_head]
    for part in parts:
        if hasattr(part, 'loss_module'):
            yield f'{head.place}.anchor_head.loss', part.loss_module


def check_losses(heads: List[Head], hooks: List[Hook]) -> None:
    """Raise a UsageError where a loss has no class counts and no ClassCountsHook sets them."""
    for head in heads:
        for place, loss in _losses(head):
            if hasattr(loss, 'set_class_counts') and loss.class_counts is None and not _has(hooks, 'ClassCountsHook'):
                raise UsageError(f'{place}: {type(loss).__name__} has no class counts: {ADD_COUNTS}')


def check_metrics(loop: Optional[BaseLoop], hooks: List[Hook], heads: List[Head]) -> None:
    """Raise a UsageError where the hook that a metric needs is missing, or it does not fit the data or a head."""
    metrics = loop.evaluator.metrics if hasattr(loop, 'evaluator') else []
    for index, metric in enumerate(metrics):
        place = 'val_evaluator' if len(metrics) == 1 else f'val_evaluator.{index}'
        name = type(metric).__name__
        if hasattr(metric, 'observe') and not _has(hooks, 'FeatureTapHook'):
            raise UsageError(f"{place}: {name} sees no features: add dict(type='FeatureTapHook') to custom_hooks")
        for head in heads if getattr(metric, 'needs_one_label', False) else ():
            if _is(head.module, 'MultiLabelClsHead'):
                raise UsageError(
                    f'{place}: {name} takes one label per sample, but {head.place} is a {type(head.module).__name__}, '
                    'whose images have several: use MultiLabelMetric'
                )
        if not hasattr(metric, 'set_class_counts'):
            continue
        if metric.class_counts is not None:
            try:
                metric.checked_class_counts()
            except ValueError as error:
                raise UsageError(f'{place}: {error}') from error
        elif not _has(hooks, 'ClassCountsHook'):
            raise UsageError(f'{place}: {name} has no class counts: {ADD_COUNTS}')


def check_checkpoint_hook(hooks: List[Hook]) -> None:
    """Raise a UsageError for an option of CheckpointHook that is used only when it saves, and is unknown there."""
    valid = [*signature(CheckpointHook.__init__).parameters, *signature(Runner.save_checkpoint).parameters]
    for hook in hooks:
        for name in set(getattr(hook, 'args', ())).difference(valid) if isinstance(hook, CheckpointHook) else ():
            raise UsageError(f'default_hooks.checkpoint has no option {name}{did_you_mean(name, valid)}')


def _has(hooks: List[Hook], name: str) -> bool:
    return any(_is(hook, name) for hook in hooks)


def _is(part: Any, name: str) -> bool:
    return any(base.__name__ == name for base in type(part).__mro__)
