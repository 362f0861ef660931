"""Deferred re-balancing (Cao et al., NeurIPS 2019): first train on the data as they are, then balance the classes."""

from typing import Any, List, Optional

import torch
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from ...checks import UsageError, check, check_beta, check_choice, check_flag, check_integer
from ...datasets.class_counts import KINDS
from ...datasets.samplers import check_power
from ...ops import effective_number_weights
from ...registry import HOOKS
from .class_counts import training_class_counts


@HOOKS.register_module()
class DeferredReweightingHook(Hook):
    """Weights the classes in the losses from an epoch or iteration on (DRW); LDAM-DRW is LDAM's loss with this hook.

    The weights are proportional to (1 - beta) / (1 - beta^n_k), n_k being the training images of class k, and average 1
    over the training images, so that the step size stays. They become the ``class_weight`` of every module of the model
    that has this attribute: the cross-entropies of MMPretrain and MMSegmentation, and the long-tailed losses of this
    package. Where it is a buffer, its values are replaced: moving averages of the model pair buffers by position. Until
    then, the ``class_weight`` of the config holds.

    Where pixels are ignored, take a loss of this package: with ``class_weight``, CrossEntropyLoss of mmseg 1.2.2 fails
    on ignored pixels (IndexError), and that of the OneDL fork does with ``avg_non_ignore=True``.

    Args:
        begin: The first epoch with these weights, counted from 0; published: 160 of 200 on CIFAR.
        by_epoch: Whether ``begin`` is an epoch, else an iteration.
        beta: In [0, 1). Counts far above 1 / (1 - beta) all weigh the same: for pixels, take a beta much closer to 1,
            or ``kind='images'``.
        file: The counts, as ``tools/dataset_converters/class_counts.py`` writes them. None counts the labels of the
            images in ``train_dataloader``; segmentation needs a file.
        kind: Which counts of the file: ``'pixels'`` or ``'images'``.

    Raises:
        ValueError: At the start of the training: no module has a ``class_weight``, the counts are not those of the
            model's classes, or ``begin`` is an epoch in a loop without epochs.

    Example::

        custom_hooks = [dict(type='DeferredReweightingHook', begin=160)]
        custom_hooks = [dict(type='DeferredReweightingHook', begin=60000, by_epoch=False, beta=0.999, kind='images',
                             file='data/camvid/class_counts.json')]
    """

    def __init__(
        self,
        begin: int,
        by_epoch: bool = True,
        beta: float = 0.9999,
        file: Optional[str] = None,
        kind: str = 'pixels',
    ) -> None:
        check_integer('begin', begin, 0)
        check_flag('by_epoch', by_epoch)
        check_beta(beta)
        check_choice('kind', kind, KINDS)
        self.begin = begin
        self.by_epoch = by_epoch
        self.beta = beta
        self.file = file
        self.kind = kind

    def before_train(self, runner: Runner) -> None:
        # What fails should fail now, not after most of the training.
        if self.by_epoch:
            _check_epochs(runner, type(self).__name__, 'use by_epoch=False')
        counts = training_class_counts(runner, self.file, self.kind)
        self._losses = _weighted_modules(runner.model, len(counts))
        weights = effective_number_weights(torch.tensor(counts, dtype=torch.float64), self.beta).tolist()
        mean = sum(count * weight for count, weight in zip(counts, weights)) / sum(counts)
        self._weights = [weight / mean for weight in weights]

    def before_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch and runner.epoch >= self.begin:
            self._weight()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None) -> None:
        if not self.by_epoch and runner.iter >= self.begin:
            self._weight()

    def _weight(self) -> None:
        loss: Any
        for loss in self._losses:
            buffer = dict(loss.named_buffers(recurse=False)).get('class_weight')
            if buffer is None:
                loss.class_weight = self._weights
            else:
                buffer.copy_(buffer.new_tensor(self._weights))


@HOOKS.register_module()
class DeferredResamplingHook(Hook):
    """Sets the power of a :class:`ClassPowerSampler` from an epoch on (DRS).

    Args:
        begin: The first epoch with the new power, counted from 0.
        power: The new power; 0 is class-balanced.

    Raises:
        ValueError: At the start of the training: the sampler of ``train_dataloader`` is no :class:`ClassPowerSampler`,
            or the loop has no epochs.

    Example::

        train_dataloader = dict(sampler=dict(type='ClassPowerSampler', power=1))
        custom_hooks = [dict(type='DeferredResamplingHook', begin=160)]
    """

    def __init__(self, begin: int, power: float = 0.0) -> None:
        check_integer('begin', begin, 0)
        check_power(power)
        self.begin = begin
        self.power = power

    def before_train(self, runner: Runner) -> None:
        _check_epochs(runner, type(self).__name__, 'use an epoch-based one')
        sampler = runner.train_dataloader.sampler
        valid = "a ClassPowerSampler for DeferredResamplingHook: sampler=dict(type='ClassPowerSampler', power=1)"
        check(hasattr(sampler, 'power'), 'train_dataloader.sampler', type(sampler).__name__, valid)

    def before_train_epoch(self, runner: Runner) -> None:
        if runner.epoch >= self.begin:
            runner.train_dataloader.sampler.power = self.power


def _check_epochs(runner: Runner, hook: str, remedy: str) -> None:
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        raise UsageError(f'{hook} begins at an epoch, but an IterBasedTrainLoop has none: {remedy}')


def _weighted_modules(model: nn.Module, num_counts: int) -> List[nn.Module]:
    """Return the modules with a ``class_weight``; a ValueError where there is none or it does not fit the counts."""
    losses = [module for module in model.modules() if hasattr(module, 'class_weight')]
    if not losses:
        raise UsageError(
            'DeferredReweightingHook: no module of the model has a class_weight; use a loss that has one, such as '
            'CrossEntropyLoss'
        )
    for head in model.modules():
        classes = getattr(head, 'num_classes', num_counts)
        if classes != num_counts and any(module in losses for module in head.modules()):
            raise UsageError(
                f'DeferredReweightingHook: {type(head).__name__} has {classes} classes, but there are '
                f'{num_counts} class counts'
            )
        if getattr(head, 'out_channels', None) == 1 and any(module in losses for module in head.children()):
            raise UsageError(
                f'DeferredReweightingHook: {type(head).__name__} has out_channels=1, which takes one class weight for '
                'two classes: leave out_channels and use_sigmoid out, or the hook'
            )
    return losses
