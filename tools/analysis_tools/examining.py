"""What compare_features.py and report.py share: a run of a model over its test set, and what it shows."""

import argparse
import os.path as osp
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor

import sar_mm  # noqa: F401  registers the SAR modules, so that configs need no custom_imports here
from sar_mm.analysis import ClassReservoir, FeatureStatistics
from sar_mm.analysis.report import Examined, PredictionRecorder
from sar_mm.checks import UsageError
from sar_mm.cli.checkpoints import check_checkpoint
from sar_mm.cli.config import build_runner, load_config
from sar_mm.datasets import distinct_class_counts, read_class_counts
from sar_mm.datasets.class_counts import counts_file
from sar_mm.engine.hooks.feature_tap import FeatureTapHook, find_classifier, predicting_parts
from sar_mm.evaluation import FeatureGeometry


class SampledGeometry(FeatureGeometry):
    """FeatureGeometry that also keeps a sample of the features, and what it computed the geometry of."""

    def __init__(self, size: int, seed: int, ignore_index: int) -> None:
        super().__init__(ignore_index=ignore_index)
        self.size, self.seed = size, seed
        self.reservoir: Optional[ClassReservoir] = None

    def update(self, feature: Tensor, target: Tensor) -> None:
        super().update(feature, target)
        if self.reservoir is None:
            self.reservoir = ClassReservoir(self.num_classes, self.size, self.seed)
        self.reservoir.update(feature, target)

    def compute_metrics(self, results: List[FeatureStatistics]) -> Dict[str, float]:
        self.means = results[0].mean.cpu().numpy()
        self.drawn_anchors = None if self.anchors is None else self.anchors.cpu().numpy()
        return super().compute_metrics(results)


def is_segmentation(cfg: Config) -> bool:
    return cfg.get('default_scope') == 'mmseg'


def read_config(path: str, work_dir: Path, options: Optional[List[str]]) -> Config:
    """Read a config with the options of the command line.

    Raises:
        UsageError: It tests with sliding windows.
    """
    common = dict(cfg_options=options, launcher='none', local_rank=0, work_dir=str(work_dir))
    cfg = load_config(argparse.Namespace(config=path, **common))
    if is_segmentation(cfg) and cfg.model.get('test_cfg', {}).get('mode') == 'slide':
        raise UsageError(
            f'{path} tests with sliding windows, that is with several forward passes for an image; add '
            '`--cfg-options model.test_cfg.mode=whole`'
        )
    return cfg


def settings(cfg: Config, keys: Tuple[str, ...], name: str) -> Iterator[dict]:
    """Yield the metrics or hooks of a class in these lists of a config."""
    for key in keys:
        each = cfg.get(key) or ()
        for setting in each if isinstance(each, (list, tuple)) else [each]:
            kind = setting.get('type') if isinstance(setting, dict) else None
            if (kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', '')) == name:
                yield setting


def group_metric(configs: List[Config]) -> Dict[str, Any]:
    """Return the options that make the groups, of the first config with a metric by groups."""
    name, options = 'GroupAccuracy', ('many', 'few', 'class_counts')
    if is_segmentation(configs[0]):
        name, options = 'GroupIoUMetric', ('common', 'rare', 'class_counts')
    for cfg in configs:
        for metric in settings(cfg, ('test_evaluator', 'val_evaluator'), name):
            return {option: metric[option] for option in options if metric.get(option) is not None}
    return {}


def training_counts(configs: List[Config], path: Optional[str]) -> Tuple[List[int], str]:
    """Return the counts per class, from a file or of the training data, and whether of ``'pixels'`` or ``'images'``."""
    cfg, for_pixels = configs[0], is_segmentation(configs[0])
    kind = 'pixels' if for_pixels else 'images'
    hooks = [hook for each in configs for hook in settings(each, ('custom_hooks',), 'ClassCountsHook')]
    hook = next((hook for hook in hooks if hook.get('file')), None)
    written = counts_file(cfg.get('train_dataloader'))
    written = written if written and osp.isfile(written) else None
    try:
        if path is not None:
            return read_class_counts(path, kind), kind
        if hook is not None:
            kind = hook.get('kind', 'pixels')
            return read_class_counts(hook['file'], kind), kind
        if for_pixels and written is not None:
            return read_class_counts(written, kind), kind
        try:
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
                return distinct_class_counts(DATASETS.build(cfg.train_dataloader.dataset)), 'images'
        except (AttributeError, OSError, ValueError):
            if written is None:
                raise
            return read_class_counts(written, kind), kind
    except (AttributeError, OSError, ValueError) as error:
        raise UsageError(f'training data cannot be counted ({error}); name a file by --class-counts') from error


def class_counts(configs: List[Config], path: Optional[str]) -> Tuple[Dict[str, Any], str]:
    """Return the options of the metric by groups, with the counts of the classes, and what is counted."""
    groups, kind = group_metric(configs), 'pixels' if is_segmentation(configs[0]) else 'images'
    if path or 'class_counts' not in groups:
        groups['class_counts'], kind = training_counts(configs, path)
    return groups, kind


def examine(
    cfg: Config,
    config: str,
    checkpoint: str,
    groups: Dict[str, Any],
    args: argparse.Namespace,
    record: bool = False,
) -> Examined:
    """Run one model over its test set.

    Args:
        cfg: Its config.
        config: Path of it, for messages.
        checkpoint: Path of its weights.
        groups: Options of the metric by groups, with the counts of the classes; without them there are no groups.
        args: ``layer``, ``samples_per_class`` and ``seed`` of the command line.
        record: Whether to keep what is predicted of every image.

    Raises:
        UsageError: The checkpoint is one of another model, a layer that is not there, counts of other classes.
    """
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    ignore_index = next((each['ignore_index'] for each in evaluators if 'ignore_index' in each), 255)
    counts = groups.get('class_counts')
    if is_segmentation(cfg):
        groups = dict(groups, type='sar_mm.GroupIoUMetric') if counts else dict(type='sar_mm.ClassIoUMetric')
        cfg.test_evaluator = dict(groups, ignore_index=ignore_index)
    else:
        groups = dict(groups, type='sar_mm.GroupAccuracy', per_class=True) if counts else dict(type='Accuracy')
        cfg.test_evaluator = groups
    cfg.load_from = checkpoint
    runner = build_runner(cfg)
    check_checkpoint(runner, checkpoint, config, to_resume=False)
    dataset_meta = runner.test_dataloader.dataset.metainfo
    classes = tuple(map(str, dataset_meta.get('classes', ())))
    if counts is not None and len(classes) != len(counts):
        raise UsageError(
            f'there are {len(counts)} class counts, but the test set of {config} has {len(classes)} classes'
        )
    try:
        for part in predicting_parts(runner.model):
            find_classifier(part, args.layer)
    except ValueError as error:
        raise UsageError(f'{error} (--layer)') from error
    sampled = SampledGeometry(args.samples_per_class, args.seed, ignore_index)
    recorder = PredictionRecorder(len(classes), ignore_index) if record else None
    for metric in (sampled, recorder):
        if metric is not None:
            metric.dataset_meta = dataset_meta
            runner.test_evaluator.metrics.append(metric)
    runner.register_hook(FeatureTapHook(args.layer))
    metrics = runner.test()
    prefix = 'IoU/' if is_segmentation(cfg) else 'accuracy/'
    of_class = [metrics.pop(f'{prefix}{name}', float('nan')) for name in classes]
    if recorder is not None and counts is None:
        of_class = recorder.of_class(is_segmentation(cfg))
    numbers = {name: float(value) for name, value in metrics.items()}
    reservoir = sampled.reservoir
    features, labels = reservoir.features.numpy(), reservoir.labels.numpy()
    found = Examined(classes, numbers, of_class, sampled.means, sampled.drawn_anchors, features, labels)
    return found if recorder is None else found._replace(recorder=recorder, dataset=runner.test_dataloader.dataset)
