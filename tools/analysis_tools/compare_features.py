"""Compare the feature spaces of two checkpoints, stock or SAR, for classification or segmentation.

    python tools/analysis_tools/compare_features.py STOCK_CONFIG STOCK_CHECKPOINT SAR_CONFIG SAR_CHECKPOINT

Runs each model over the test set once and writes into the folder ``--out``

    geometry.json    scatter, cosines, distance to the anchors and neural collapse of the features in front of the
                     classifier (what each is: sar_mm.analysis.geometry), and the scores by groups of classes
    cosines.png      cosines of the class means and the anchors
    frequency.png    accuracy or IoU of each class over its number of training images or pixels
    tsne.png         t-SNE of equally many features of every class, with the anchors

and prints the numbers of both models side by side. The groups are those of the first config with a GroupAccuracy or a
GroupIoUMetric, else of its defaults. The counts per class are, in this order, those of --class-counts, of that metric,
of the file of a ClassCountsHook, of the training images in classification, and those that
tools/dataset_converters/class_counts.py wrote into the data_root.
"""

import argparse
import json
import math
import os.path as osp
from copy import deepcopy
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for letter in 'ab':
        parser.add_argument(f'config_{letter}', help=f'path of the config of model {letter.upper()}')
        parser.add_argument(f'checkpoint_{letter}', help='path of its checkpoint')
    parser.add_argument('--names', default='stock,SAR', help='what to call the models, default stock,SAR')
    parser.add_argument('--layer', help='dotted name of the classifier layer, where it is not found')
    parser.add_argument('--samples-per-class', type=int, default=100, help='features in the t-SNE, default 100')
    parser.add_argument('--seed', type=int, default=0, help='seed of the sample and of the t-SNE, default 0')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/compare_features'), help='folder for the results')
    parser.add_argument('--class-counts', help='JSON file of tools/dataset_converters/class_counts.py')
    parser.add_argument('--cfg-options', nargs='+', help='override settings of both configs')
    args = parser.parse_args()
    args.names = [name.strip() for name in args.names.split(',')]
    if len(set(args.names) - {''}) != 2:
        parser.error(f'--names takes two different names with a comma between them, not {",".join(args.names)}')
    for option in ('samples_per_class', 'seed'):
        least = 1 if option == 'samples_per_class' else 0
        if getattr(args, option) < least:
            parser.error(f'--{option.replace("_", "-")} is to be at least {least}, not {getattr(args, option)}')
    return args


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from prettytable import PrettyTable
from torch import Tensor

import sar_mm  # noqa: F401  registers the SAR modules, so that configs need no custom_imports here
from sar_mm.analysis import ClassReservoir, FeatureStatistics
from sar_mm.analysis.plots import plot_accuracy_by_frequency, plot_cosines, plot_tsne
from sar_mm.checks import UsageError
from sar_mm.cli.checkpoints import check_checkpoint, check_checkpoint_path
from sar_mm.cli.config import build_runner, load_config
from sar_mm.cli.errors import report_errors
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


class Examined(NamedTuple):
    """What the test set showed of a model."""

    classes: Tuple[str, ...]
    numbers: Dict[str, float]
    of_class: List[float]
    means: np.ndarray
    anchors: Optional[np.ndarray]
    features: np.ndarray
    labels: np.ndarray


def is_segmentation(cfg: Config) -> bool:
    return cfg.get('default_scope') == 'mmseg'


def read_config(path: str, work_dir: Path, args: argparse.Namespace) -> Config:
    options = deepcopy(args.cfg_options)
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


def examine(cfg: Config, config: str, checkpoint: str, groups: Dict[str, Any], args: argparse.Namespace) -> Examined:
    """Run one model over its test set; ``groups`` are options of the metric, with the counts of the classes."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    ignore_index = next((each['ignore_index'] for each in evaluators if 'ignore_index' in each), 255)
    counts = groups['class_counts']
    if is_segmentation(cfg):
        cfg.test_evaluator = dict(type='sar_mm.GroupIoUMetric', ignore_index=ignore_index, **groups)
    else:
        cfg.test_evaluator = dict(type='sar_mm.GroupAccuracy', per_class=True, **groups)
    cfg.load_from = checkpoint
    runner = build_runner(cfg)
    check_checkpoint(runner, checkpoint, config, to_resume=False)
    dataset_meta = runner.test_dataloader.dataset.metainfo
    classes = tuple(map(str, dataset_meta.get('classes', ())))
    if len(classes) != len(counts):
        raise UsageError(
            f'there are {len(counts)} class counts, but the test set of {config} has {len(classes)} classes'
        )
    try:
        for part in predicting_parts(runner.model):
            find_classifier(part, args.layer)
    except ValueError as error:
        raise UsageError(f'{error} (--layer)') from error
    sampled = SampledGeometry(args.samples_per_class, args.seed, ignore_index)
    sampled.dataset_meta = dataset_meta
    runner.test_evaluator.metrics.append(sampled)
    runner.register_hook(FeatureTapHook(args.layer))
    metrics = runner.test()
    prefix = 'IoU/' if is_segmentation(cfg) else 'accuracy/'
    of_class = [metrics[f'{prefix}{name}'] for name in classes]
    numbers = {name: float(value) for name, value in metrics.items() if not name.startswith(prefix)}
    reservoir = sampled.reservoir
    features, labels = reservoir.features.numpy(), reservoir.labels.numpy()
    return Examined(classes, numbers, of_class, sampled.means, sampled.drawn_anchors, features, labels)


def draw(models: Dict[str, Examined], counts: List[int], kind: str, measure: str, args: argparse.Namespace) -> None:
    classes = next(iter(models.values())).classes
    figures = dict(
        cosines=plot_cosines(classes, {name: (model.means, model.anchors) for name, model in models.items()}),
        frequency=plot_accuracy_by_frequency(
            classes,
            counts,
            {name: model.of_class for name, model in models.items()},
            measure=measure,
            unit=f'training {kind}',
        ),
        tsne=plot_tsne(
            {name: (model.features, model.labels, model.anchors) for name, model in models.items()}, classes, args.seed
        ),
    )
    for name, figure in figures.items():
        figure.savefig(args.out / f'{name}.png')


def write_numbers(models: Dict[str, Examined], path: Path) -> None:
    """Write the numbers as JSON, null for what is not a number."""
    content = {
        name: {key: value if math.isfinite(value) else None for key, value in model.numbers.items()}
        for name, model in models.items()
    }
    path.write_text(json.dumps(content, indent=2) + '\n')


def show(models: Dict[str, Examined]) -> None:
    table = PrettyTable(['', *models])
    table.align, table.align[''] = 'r', 'l'
    for key in dict.fromkeys(key for model in models.values() for key in model.numbers):
        values = [model.numbers.get(key) for model in models.values()]
        table.add_row([key, *('' if value is None else f'{value:.4g}' for value in values)])
    print(table)


def main(args: argparse.Namespace) -> None:
    given = ((args.config_a, args.checkpoint_a), (args.config_b, args.checkpoint_b))
    with report_errors():
        for _, checkpoint in given:
            check_checkpoint_path(checkpoint)
        configs = [read_config(config, args.out / name, args) for name, (config, _) in zip(args.names, given)]
        groups, kind = group_metric(configs), 'pixels' if is_segmentation(configs[0]) else 'images'
        if args.class_counts or 'class_counts' not in groups:
            groups['class_counts'], kind = training_counts(configs, args.class_counts)
    models = {}
    for name, cfg, (config, checkpoint) in zip(args.names, configs, given):
        with report_errors(cfg):
            models[name] = examine(cfg, config, checkpoint, groups, args)
    with report_errors():
        first, second = (model.classes for model in models.values())
        if first != second:
            raise UsageError(f'the models are tested on different classes, {first} and {second}')
    args.out.mkdir(parents=True, exist_ok=True)
    write_numbers(models, args.out / 'geometry.json')
    draw(models, groups['class_counts'], kind, 'IoU (%)' if is_segmentation(configs[0]) else 'accuracy (%)', args)
    show(models)
    print(f'geometry.json, cosines.png, frequency.png and tsne.png are in {args.out}')


if __name__ == '__main__':
    main(ARGS)
