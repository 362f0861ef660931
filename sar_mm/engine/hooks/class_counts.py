from copy import deepcopy
from typing import Any, List, Optional

from mmengine.hooks import Hook
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.runner import BaseLoop, Runner

from ...checks import UsageError, check_choice
from ...datasets.class_counts import KINDS, TOOL, class_counts, read_class_counts
from ...datasets.distinct_images import distinct_class_counts
from ...registry import HOOKS


def training_class_counts(runner: Runner, file: Optional[str], kind: str) -> List[int]:
    """Return the counts per class in ``file`` or, without one, of the runner's training data as training sees them."""
    return class_counts(_training_data(runner)) if file is None else read_class_counts(file, kind)


def _training_data(runner: Runner) -> Any:
    # In a test or validation, runner.train_loop would build the loop with all its workers.
    if isinstance(runner._train_loop, BaseLoop):
        return runner._train_loop.dataloader.dataset
    dataloader = runner._train_dataloader
    if dataloader is None:
        raise UsageError(
            f'class counts need a train_dataloader in the config, or a file that `python {TOOL} CONFIG` wrote'
        )
    if not isinstance(dataloader, dict):
        return dataloader.dataset
    dataset = dataloader['dataset']
    return MMENGINE_DATASETS.build(deepcopy(dataset)) if isinstance(dataset, dict) else dataset


@HOOKS.register_module()
class ClassCountsHook(Hook):
    """Tells losses and metrics how often each class is in the training data, in training and in tests.

    Before the run, every module of the model and every metric of the evaluators in use that has a method
    ``set_class_counts(counts)``, as :class:`TakesClassCounts`, gets the list of K integers, by class index. Without
    any, no data are loaded.

    Modules get the counts of the images as training sees them: one that a ClassBalancedDataset repeats counts as often
    as it is repeated, since a loss corrects for the frequencies of its targets. Metrics get those of distinct images: a
    rare class that is oversampled is still rare. A RepeatDataset around all changes neither.

    Args:
        file: The counts, as ``tools/dataset_converters/class_counts.py`` writes them. None counts the labels of the
            images in ``train_dataloader``; segmentation needs a file. With a file, a test does not need the training
            data.
        kind: Which counts of the file: ``'pixels'`` or ``'images'``.

    Raises:
        ValueError: There are no counts, or a loss has a head of another number of classes.

    Example::

        custom_hooks = [dict(type='ClassCountsHook')]
        custom_hooks = [dict(type='ClassCountsHook', file='data/camvid/class_counts.json')]
    """

    priority = 'VERY_HIGH'

    def __init__(self, file: Optional[str] = None, kind: str = 'pixels') -> None:
        check_choice('kind', kind, KINDS)
        self.file = file
        self.kind = kind

    def before_run(self, runner: Runner) -> None:
        modules = [module for module in runner.model.modules() if hasattr(module, 'set_class_counts')]
        metrics = []
        for loop in (runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop) and hasattr(loop, 'evaluator'):  # else it is a config
                metrics += [metric for metric in loop.evaluator.metrics if hasattr(metric, 'set_class_counts')]
        if not modules and not metrics:
            runner.logger.warning('ClassCountsHook: no module of the model and no metric asks for class counts')
            return
        if self.file is None:
            data = _training_data(runner)
            counts, distinct = class_counts(data), distinct_class_counts(data) if metrics else []
        else:
            counts = distinct = read_class_counts(self.file, self.kind)
        for module in modules:
            module.set_class_counts(list(counts))
        for metric in metrics:
            metric.set_class_counts(list(distinct))
        for head in runner.model.modules():
            classes = getattr(head, 'num_classes', len(counts))
            if classes != len(counts) and any(hasattr(child, 'set_class_counts') for child in head.children()):
                source = 'the training data' if self.file is None else f'file={self.file!r}'
                raise UsageError(
                    f'ClassCountsHook: {source} has counts of {len(counts)} classes, but {type(head).__name__} has '
                    f'num_classes={classes}'
                )
