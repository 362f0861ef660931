"""How many images or pixels of each class there are: counted from labels, or read from a file."""

import json
import os.path as osp
from itertools import chain
from typing import Any, List, Optional

import numpy as np
from mmengine.dataset import RepeatDataset
from mmengine.fileio import get_text

from ..checks import UsageError, check, check_choice, check_integer

TOOL = 'tools/dataset_converters/class_counts.py'
KINDS = ('pixels', 'images')


def class_counts(dataset: Any) -> List[int]:
    """Count the images of every class of a classification data set or of a wrapper around one, as training sees them.

    ``metainfo['class_counts']`` is used where a data set has it, as views of this package do; else the labels are
    counted. An image that a ClassBalancedDataset repeats counts as often as it is repeated, but a RepeatDataset around
    all changes no frequency and does not count. An image with several labels counts for each of them. Of a
    :class:`SemiSupervisedDataset`, the labeled images count. :func:`distinct_class_counts` counts every image once.

    Args:
        dataset: Has ``get_cat_ids(idx)``, ``get_gt_labels()`` or ``get_data_info(idx)['gt_label']``. The number of
            classes K is that of its ``metainfo['classes']`` or, where it names none, the largest label + 1.

    Returns:
        K counts, 0 for a class without an image.

    Raises:
        ValueError: The data set has no labels per image, as in segmentation, or one outside [0, K).
    """
    dataset = labeled_part(dataset)
    known = getattr(dataset, 'metainfo', {}).get('class_counts')
    # A wrapper that joins, repeats or splits has the metainfo of what it wraps, with the counts of another number.
    if known is not None and sum(known) == len(dataset):
        classes = dataset.metainfo.get('classes', known)
        check(len(known) == len(classes), "metainfo['class_counts']", known, f'of length {len(classes)}, one per class')
        return [int(count) for count in known]
    return count_labels(dataset, list(chain.from_iterable(image_labels(dataset))))


def full_init(dataset: Any) -> None:
    """Load a data set that mmengine loads lazily."""
    if hasattr(dataset, 'full_init'):
        dataset.full_init()


def count_labels(dataset: Any, labels: Any) -> List[int]:
    """Return how often each class of a data set is in ``labels``; a ValueError for one outside [0, K)."""
    return np.bincount(labels, minlength=count_classes(dataset, labels)).tolist()


def labeled_part(dataset: Any) -> Any:
    """Return the data set to count: the labeled images, without a RepeatDataset around all."""
    full_init(dataset)
    dataset = getattr(dataset, 'labeled', dataset)  # of a SemiSupervisedDataset
    while isinstance(dataset, RepeatDataset):
        dataset = dataset.dataset
    return dataset


def image_labels(dataset: Any) -> List[List[int]]:
    """Return the class indices of every image, in the order of the data set; see :func:`class_counts`."""
    full_init(dataset)
    readers = (
        lambda: [dataset.get_cat_ids(index) for index in range(len(dataset))],
        lambda: dataset.get_gt_labels(),
        # mmengine's ConcatDataset and RepeatDataset have no other method.
        lambda: [dataset.get_data_info(index)['gt_label'] for index in range(len(dataset))],
    )
    for read in readers:
        try:
            labels = read()
        except (AttributeError, KeyError, NotImplementedError):  # the last is what mmengine's BaseDataset raises
            continue
        return [np.ravel(label).tolist() for label in labels]
    raise UsageError(
        f'{type(dataset).__name__} has no labels of images to count. For segmentation, write the counts to a file '
        f'with `python {TOOL} CONFIG` and name it where the counts are needed, as in ClassCountsHook(file=...)'
    )


def image_label(dataset: Any) -> np.ndarray:
    """Return the one class index of every image, (N,) int64; a ValueError where an image has none or several."""
    labels = image_labels(dataset)
    for index, label in enumerate(labels):
        check(len(label) == 1, f'dataset ({type(dataset).__name__})', label, f'of one label per image (image {index})')
    return np.array(labels, dtype=np.int64).reshape(-1)


def count_classes(dataset: Any, labels: Any) -> int:
    """Return the number of classes K; a ValueError for a label outside [0, K)."""
    lowest, highest = (int(min(labels)), int(max(labels))) if len(labels) else (0, -1)
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    number = highest + 1 if classes is None else len(classes)
    for label in (lowest, highest):
        check(label < number and lowest >= 0, f'labels of {type(dataset).__name__}', label, f'in [0, {number})')
    return number


def read_class_counts(path: str, kind: str = 'pixels') -> List[int]:
    """Read the counts per class that ``tools/dataset_converters/class_counts.py`` writes.

    The file is JSON: ``{"classes": ["road", ...], "images": [367, ...], "pixels": [9421, ...]}``. ``images`` are those
    that show the class; ``pixels`` is there for segmentation only.

    Args:
        path: Path or URL of the file.
        kind: ``'pixels'`` or ``'images'``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no such JSON, or has no counts of this kind.
    """
    check_choice('kind', kind, KINDS)
    try:
        content = json.loads(get_text(path, encoding='utf-8-sig'))
    except FileNotFoundError as error:
        raise FileNotFoundError(f'there are no class counts in {path}; `python {TOOL} CONFIG` writes them') from error
    except ValueError as error:  # no text, or no JSON
        raise UsageError(f'{path} is not a JSON file of class counts: {error}') from error
    if not isinstance(content, dict) or not isinstance(content.get('classes'), list):
        raise UsageError(f'{path} is not a file of class counts as {TOOL} writes it: it has no list "classes"')
    if kind not in content:
        there = [name for name in KINDS if name in content]
        raise UsageError(f'{path} has no counts of kind={kind!r}, only of {there}')
    counts, classes = content[kind], content['classes']
    if not isinstance(counts, list) or len(counts) != len(classes):
        raise UsageError(f'"{kind}" in {path} should be a list with one count for each of the {len(classes)} classes')
    for name, count in zip(classes, counts):
        check_integer(f'{kind} of class {name} in {path}', count, 0)
    return counts


def counts_file(dataloader: Any) -> Optional[str]:
    """Return where the tool writes the counts of a data loader's config; None where the data have no ``data_root``."""
    root = find_key(dataloader, 'data_root')
    return osp.join(osp.expanduser(root), 'class_counts.json') if root else None


def find_key(node: Any, key: str) -> Any:
    """Return the first value of ``key`` anywhere in a config, or None."""
    if isinstance(node, dict):
        if key in node:
            return node[key]
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return None
    found = (find_key(child, key) for child in node)
    return next((value for value in found if value is not None), None)
