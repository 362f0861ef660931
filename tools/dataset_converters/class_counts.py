"""Count the images, and in segmentation the pixels, of every class in the training data of a config.

    python tools/dataset_converters/class_counts.py CONFIG

writes them to ``<data_root>/class_counts.json``, where ClassCountsHook, the long-tailed losses and the metrics by class
frequency read them: ``custom_hooks = [dict(type='ClassCountsHook', file='<data_root>/class_counts.json')]``.

``{"classes": [...], "images": [...], "pixels": [...]}``: ``images`` are those that show the class. ``pixels`` is there
for segmentation only; they are those of the label maps as LoadAnnotations, or what is derived from it, gives them, also
within CheckedLoading and the like, before cropping and resizing. An image that wrappers repeat counts once. A warning
names the classes that no label shows.
Classification needs no such file, as the hook counts the labels of the training data itself.
"""

import argparse
import json
import sys
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--out', help='file to write; default class_counts.json in the data_root of the data set')
    parser.add_argument('--cfg-options', nargs='+', help='override settings of the config')
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)  # what load_config reads of a run
    return parser.parse_args()


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from mmengine.utils import track_iter_progress
from rich.console import Console
from rich.table import Table

import sar_mm  # noqa: F401  registers the data sets of this package
from sar_mm.checks import UsageError
from sar_mm.cli.config import load_config
from sar_mm.cli.errors import report_errors
from sar_mm.datasets import distinct_class_counts, distinct_images
from sar_mm.datasets.class_counts import counts_file, find_key

MAX_ABSENT = 10  # classes to name


def type_name(cfg: dict) -> str:
    """Return the name of the class that a config builds, without a scope."""
    kind = cfg.get('type')
    return kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', '')


def label_map_loaders(pipeline: Any) -> List[dict]:
    """Return the transforms in a pipeline that load label maps, also those in other transforms, such as CheckedLoading.

    A loader is LoadAnnotations of mmseg or mmcv or is derived from it. Of branches that load the same, there is one.
    """
    found = []
    for step in pipeline if isinstance(pipeline, (list, tuple)) else [pipeline]:
        if not isinstance(step, dict):
            found += label_map_loaders(step) if isinstance(step, (list, tuple)) else []
        elif 'type' in step and is_loader(step['type']):
            found += [step] if step not in found else []
        else:
            found += [loader for loader in label_map_loaders(list(step.values())) if loader not in found]
    return found


def is_loader(kind: Any) -> bool:
    with TRANSFORMS.switch_scope_and_registry(None) as registry:
        loader = registry.get(kind) if isinstance(kind, str) else kind
    return isinstance(loader, type) and issubclass(loader, LoadAnnotations)


def count_once(cfg: dict) -> dict:
    """Return a data set's config without the wrappers around the data that repeat images or mix several."""
    while type_name(cfg) in ('RepeatDataset', 'ClassBalancedDataset', 'MultiImageMixDataset'):
        cfg = cfg['dataset']
    return cfg


def keep_label_maps_only(cfg: dict) -> bool:
    """Leave only what loads label maps in every pipeline of a data set's config; return whether there was any."""
    has_label_maps = False
    for key, value in cfg.items():
        if key == 'pipeline':
            cfg[key] = label_map_loaders(value)[:1]
            has_label_maps |= bool(cfg[key])
        elif isinstance(value, dict):
            cfg[key] = count_once(value)
            has_label_maps |= keep_label_maps_only(cfg[key])
        elif isinstance(value, (list, tuple)):
            cfg[key] = [count_once(child) if isinstance(child, dict) else child for child in value]
            for child in cfg[key]:
                has_label_maps |= isinstance(child, dict) and keep_label_maps_only(child)
    return has_label_maps


def build_dataset(cfg: Config) -> Tuple[Any, bool]:
    """Build the training data without images; return it and whether it has label maps."""
    dataset = find_key(cfg.get('train_dataloader'), 'dataset')
    if dataset is None:
        raise UsageError('the config has no train_dataloader with a dataset')
    dataset = count_once(dataset)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    has_label_maps = keep_label_maps_only(dataset)
    try:
        return DATASETS.build(dataset), has_label_maps
    except (AssertionError, OSError, TypeError, ValueError) as error:
        raise UsageError(f'the training data cannot be loaded: {error}') from error


def count_label_maps(dataset: Any) -> Dict[str, List]:
    """Return classes, images and pixels of a segmentation data set."""
    classes = dataset.metainfo.get('classes')
    if classes is None:
        raise UsageError(f'{type(dataset).__name__} names no classes: set metainfo=dict(classes=[...])')
    pixels, images = np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64)  # mmseg loads label maps as uint8
    indices = distinct_images(dataset)
    for index in track_iter_progress((indices, len(indices)), file=sys.stderr):
        counts = np.bincount(dataset[index]['gt_seg_map'].ravel(), minlength=256)
        pixels += counts
        images += counts > 0
    others = [label for label in range(len(classes), 255) if pixels[label]]  # 255 is ignored everywhere
    if others:
        print(f'warning: {pixels[others].sum():,} pixels have labels that are no class and not 255: {others}')
    number = len(classes)
    warn_of_absent(classes, pixels, 'label map', np.flatnonzero(pixels))
    return dict(classes=list(classes), images=images[:number].tolist(), pixels=pixels[:number].tolist())


def warn_of_absent(classes: Sequence, counts: Sequence[int], what: str, values: Iterable[int] = ()) -> None:
    """Say which classes are nowhere, and why label maps of the values 0 and 255 show only one."""
    absent = [f'{label} ({name})' for label, name in enumerate(classes) if not counts[label]]
    if not absent:
        return
    others = f', and {len(absent) - MAX_ABSENT} others' if len(absent) > MAX_ABSENT else ''
    print(f'warning: no {what} shows class {", ".join(absent[:MAX_ABSENT])}{others}')
    values = [int(value) for value in values]
    if 255 in values and len(values) <= len(classes):
        print(
            f'warning: the label maps have the values {", ".join(map(str, values))}, and 255 is the ignored label, no '
            f'class: where it stands for one, write the label maps again with the values 0 to {len(classes) - 1}'
        )


def count_images(dataset: Any) -> Dict[str, List]:
    """Return classes and images of a classification data set."""
    try:
        images = distinct_class_counts(dataset)
    except ValueError as error:
        raise UsageError(str(error)) from error
    classes = list(dataset.metainfo.get('classes') or map(str, range(len(images))))
    warn_of_absent(classes, images, 'image')
    return dict(classes=classes, images=images)


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
    path = counts_file(cfg.get('train_dataloader'))
    if path is None:
        raise UsageError('the training data has no data_root to write to: say where with --out')
    return path


def main(args: argparse.Namespace) -> None:
    with report_errors():
        cfg = load_config(args)
        out = out_file(args.out, cfg)
    with report_errors(cfg):
        dataset, has_label_maps = build_dataset(cfg)
        counts = count_label_maps(dataset) if has_label_maps else count_images(dataset)
        print_table(counts, len(dataset))
        with open(out, 'w', encoding='utf-8') as file:
            json.dump(counts, file, indent=1)
    print(f'written to {out}')


if __name__ == '__main__':
    main(ARGS)
