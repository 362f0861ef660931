"""Count the images, and in segmentation the pixels, of every class in the training data of a config.

    python tools/dataset_converters/class_counts.py CONFIG

writes them to ``<data_root>/class_counts.json``, where ClassCountsHook, the long-tailed losses and the metrics by class
frequency read them: ``custom_hooks = [dict(type='ClassCountsHook', file='<data_root>/class_counts.json')]``.

``{"classes": [...], "images": [...], "pixels": [...]}``: ``images`` are those that show the class. ``pixels`` is there
for segmentation only; they are those of the label maps as LoadAnnotations gives them, before cropping and resizing.
Classification needs no such file, as the hook counts the labels of the training data itself.
"""

import argparse
import json
import os.path as osp
import sys
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS, init_default_scope
from mmengine.utils import track_iter_progress
from rich.console import Console
from rich.table import Table

import sar_mm  # noqa: F401  registers the data sets of this package
from sar_mm.datasets import class_counts
from sar_mm.engine.cli import UsageError, load_config, usage_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--out', help='file to write; default class_counts.json in the data_root of the data set')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings of the config')
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)  # what load_config wants to know of a run
    return parser.parse_args()


def type_name(cfg: dict) -> str:
    """Return the name of the class that a config builds, without a scope."""
    kind = cfg.get('type')
    return kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', '')


def find(node: Any, key: str) -> Any:
    """Return the first value of ``key`` anywhere in a config, or None."""
    if isinstance(node, dict):
        if key in node:
            return node[key]
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return None
    found = (find(child, key) for child in node)
    return next((value for value in found if value is not None), None)


def keep_label_maps_only(cfg: dict) -> bool:
    """Leave only LoadAnnotations in every pipeline of a data set's config; return whether there was any."""
    has_label_maps = False
    for key, value in cfg.items():
        if key == 'pipeline':
            cfg[key] = [step for step in value if type_name(step) == 'LoadAnnotations'][:1]
            has_label_maps |= bool(cfg[key])
        else:
            for child in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(child, dict):
                    has_label_maps |= keep_label_maps_only(child)
    return has_label_maps


def build_dataset(cfg: Config) -> Tuple[Any, bool]:
    """Build the training data without images; return it and whether it has label maps."""
    dataset = find(cfg.get('train_dataloader'), 'dataset')
    if dataset is None:
        raise UsageError('the config has no train_dataloader with a dataset')
    # What is next to the data counts every image once; MultiImageMixDataset would want its images, too.
    while type_name(dataset) in ('RepeatDataset', 'ClassBalancedDataset', 'MultiImageMixDataset'):
        dataset = dataset['dataset']
    has_label_maps = keep_label_maps_only(dataset)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    try:
        return DATASETS.build(dataset), has_label_maps
    except (AssertionError, TypeError, ValueError) as error:
        raise UsageError(f'the training data cannot be loaded: {error}') from error


def count_label_maps(dataset: Any) -> Dict[str, List]:
    """Return classes, images and pixels of a segmentation data set."""
    classes = dataset.metainfo.get('classes')
    if classes is None:
        raise UsageError(f'{type(dataset).__name__} names no classes: set metainfo=dict(classes=[...])')
    pixels, images = np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64)  # mmseg loads label maps as uint8
    for index in track_iter_progress((range(len(dataset)), len(dataset)), file=sys.stderr):
        counts = np.bincount(dataset[index]['gt_seg_map'].ravel(), minlength=256)
        pixels += counts
        images += counts > 0
    others = [label for label in range(len(classes), 255) if pixels[label]]  # 255 is ignored everywhere
    if others:
        print(f'warning: {pixels[others].sum():,} pixels have labels that are no class and not 255: {others}')
    number = len(classes)
    return dict(classes=list(classes), images=images[:number].tolist(), pixels=pixels[:number].tolist())


def count_images(dataset: Any) -> Dict[str, List]:
    """Return classes and images of a classification data set."""
    try:
        images = class_counts(dataset)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return dict(classes=list(dataset.metainfo.get('classes') or map(str, range(len(images)))), images=images)


def print_table(counts: Dict[str, List], number: int) -> None:
    kinds = [kind for kind in ('images', 'pixels') if kind in counts]
    table = Table(title=f'{number:,} training images')
    table.add_column('class', justify='right')
    table.add_column('name')
    for kind in kinds:
        table.add_column(kind, justify='right')
    table.add_column(f'share of {kinds[-1]}', justify='right')
    total = max(sum(counts[kinds[-1]]), 1)
    for label, name in enumerate(counts['classes']):
        values = [counts[kind][label] for kind in kinds]
        table.add_row(str(label), str(name), *[f'{value:,}' for value in values], f'{100 * values[-1] / total:.2f} %')
    Console().print(table)


def out_file(out: Optional[str], cfg: Config) -> str:
    if out is not None:
        return out
    root = find(cfg.get('train_dataloader'), 'data_root')
    if not root:
        raise UsageError('the training data has no data_root to write to: say where with --out')
    return osp.join(osp.expanduser(root), 'class_counts.json')


def main() -> None:
    args = parse_args()
    with usage_errors():
        cfg = load_config(args)
        out = out_file(args.out, cfg)
    with usage_errors(cfg):
        dataset, has_label_maps = build_dataset(cfg)
        counts = count_label_maps(dataset) if has_label_maps else count_images(dataset)
        print_table(counts, len(dataset))
        with open(out, 'w', encoding='utf-8') as file:
            json.dump(counts, file, indent=1)
    print(f'written to {out}')


if __name__ == '__main__':
    main()
