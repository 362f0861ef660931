"""Checks of the order of class names: in a wrong one, every class would get the scores of another."""

import json
import logging
import os.path as osp
from typing import Any, Dict, List, Tuple

from mmengine.fileio import get_text
from mmengine.hooks import Hook
from mmengine.logging import print_log

from ..checks import UsageError
from ..datasets import read_class_counts
from ..datasets.views import leaf_datasets

_MARK = '\ufeff'  # byte order mark


def check_class_order(datasets: Dict[str, Any]) -> None:
    """Check that data sets name their classes in the order of their labels, and all in the same order.

    Folders are labeled in sorted order, CIFAR and MNIST as published, whatever the names in the config are. Lists of as
    many, but other names, get a warning.

    Args:
        datasets: Data sets by their places in the config; wrapped ones are checked, too, except unlabeled ones.

    Raises:
        UsageError: The names are the right ones in another order; the message has the right list.
    """
    named: List[Tuple[str, List[str]]] = []
    for place, dataset in datasets.items():
        for leaf, leaf_place in leaf_datasets(dataset, place):
            if hasattr(leaf, 'full_init'):
                leaf.full_init()  # which reads the folders
            classes, kind = _classes(leaf), type(leaf).__name__
            _check_mark(leaf, leaf_place, classes)
            folders = getattr(leaf, 'folder_to_idx', None)
            if isinstance(folders, dict):
                right = sorted(folders, key=folders.get)
                what = f'{leaf_place}: the classes are in another order than the folders that they name'
                remedy = f'set classes={right}, and make the text anchors again that were made for the other order'
                _compare(classes, right, what, f'{kind} labels folders in sorted order: {remedy}')
            right = _published_classes(leaf)
            what = f'{leaf_place}: the classes are in another order than the labels of {kind}'
            _compare(classes, right, what, f'Leave `classes` out, which gives {right}')
            named.append((leaf_place, classes))
    for index, (place, classes) in enumerate(named):
        for other, right in named[:index]:
            remedy = f'Name them alike, as in {other} if its order is right: classes={right}'
            _compare(classes, right, f'{place} has the classes of {other} in another order', remedy)
            if classes and len(classes) == len(right) and set(classes) != set(right):
                here, there = (sorted(set(one) - set(two))[:3] for one, two in ((classes, right), (right, classes)))
                message = (
                    f'{place} and {other} have {len(classes)} classes each, but of other names: {", ".join(here)} here,'
                    f' {", ".join(there)} there. Labels are numbers: check that each stands for the same class in both'
                )
                print_log(message, 'current', logging.WARNING)


def check_order_of_counts(hooks: List[Hook], datasets: Dict[str, Any]) -> None:
    """Raise a UsageError where ClassCountsHook reads counts of the right classes in another order."""
    for hook in hooks:
        file = getattr(hook, 'file', None)
        if type(hook).__name__ != 'ClassCountsHook' or file is None:
            continue
        try:
            read_class_counts(file, hook.kind)
        except (OSError, ValueError):  # the hook raises it where the counts are needed
            continue
        right = [str(name) for name in json.loads(get_text(file, encoding='utf-8-sig'))['classes']]
        for place, dataset in datasets.items():
            classes = _classes(dataset)
            what = f'ClassCountsHook(file={file!r}) has the classes of {place} in another order'
            remedy = 'write the counts again with tools/dataset_converters/class_counts.py'
            _compare(classes, right, what, f'The order of the data is {classes}: {remedy}')


def check_order_of_checkpoint(checkpoint: dict, dataset: Any, place: str) -> None:
    """Raise a UsageError where a checkpoint was trained with the classes of a data set of mmseg in another order.

    mmseg maps labels to the order of the names in the config, so the names in the checkpoint are the order of its
    outputs. In mmpretrain, a different order may be a corrected one.
    """
    trained = [str(name) for name in _meta_classes(checkpoint.get('meta', {}).get('dataset_meta'))]
    for leaf, leaf_place in leaf_datasets(dataset, place):
        if hasattr(leaf, 'label_map') and (getattr(leaf, 'METAINFO', None) or {}).get('classes'):
            what = f'{leaf_place} has the classes of the checkpoint in another order'
            _compare(_classes(leaf), trained, what, f'Set metainfo=dict(classes={trained})')


def _compare(classes: List[str], right: List[str], what: str, remedy: str) -> None:
    """Raise a UsageError where these are the right classes in another order."""
    if classes != right and sorted(classes) == sorted(right):
        label = next(index for index, name in enumerate(classes) if name != right[index])
        raise UsageError(f'{what}: label {label} is {right[label]} there, {classes[label]} here. {remedy}')


def _published_classes(dataset: Any) -> List[str]:
    """Return the classes of a published data set of mmpretrain in the order of its labels; nothing of any other.

    Lists, folders and a ``load_data_list`` of the user may number classes otherwise; VOC's labels are names.
    """
    kind: Any = type(dataset)
    loads: Any = getattr(kind, 'load_data_list', None)
    is_published = str(getattr(loads, '__module__', '')).startswith('mmpretrain.') and kind.__name__ != 'VOC'
    if not is_published or hasattr(dataset, 'folder_to_idx') or bool(getattr(dataset, 'ann_file', '')):
        return []
    return [str(name) for name in _meta_classes(getattr(kind, 'METAINFO', None))]


def _meta_classes(metainfo: Any) -> list:
    return list((metainfo or {}).get('classes') or ())


def _classes(dataset: Any) -> List[str]:
    return [str(name) for name in _meta_classes(getattr(dataset, 'metainfo', None))]


def _check_mark(dataset: Any, place: str, classes: List[str]) -> None:
    """Raise a UsageError where a toolbox read the byte order mark of a list as a part of its first line."""
    remedy = 'save the file as UTF-8 without a byte order mark'
    if classes and classes[0].startswith(_MARK):
        raise UsageError(f'{place}: the file of class names starts with a byte order mark: {remedy}')
    if not getattr(dataset, 'ann_file', '') or not hasattr(dataset, 'get_data_info') or len(dataset) == 0:
        return
    info = dataset.get_data_info(0)
    path = info.get('img_path') if isinstance(info, dict) else None
    if isinstance(path, str) and _MARK in path and not osp.exists(path):
        raise UsageError(
            f'{place}.ann_file={dataset.ann_file!r} starts with a byte order mark, which would be a part of the first '
            f'file name: {remedy}'
        )
