"""Names of classes in another order than their labels, which would give every class the figures of another one."""

import json
import os.path as osp
from typing import Any, Dict, Iterator, List, Tuple

from mmengine.fileio import get_text
from mmengine.hooks import Hook

from ..checks import UsageError
from ..datasets import read_class_counts
from .unlabelled import inner_datasets

_MARK = '\ufeff'  # byte order mark


def check_class_order(datasets: Dict[str, Any]) -> None:
    """Check that data sets name their classes in the order of their labels, and all in the same one.

    Folders are labelled in sorted order, and CIFAR or MNIST as published, whatever the config calls the classes. Names
    that are not those of the folders or of the published set are not compared, nor are data sets whose names are not
    the same ones.

    Args:
        datasets: Data sets by their places in the config; those that they wrap are looked into, but for unlabelled
            ones.

    Raises:
        UsageError: The names are the right ones in another order; the message has the right list.
    """
    named: List[Tuple[str, List[str]]] = []
    for place, dataset in datasets.items():
        for leaf, leaf_place in _labelled_leaves(dataset, place):
            if hasattr(leaf, 'full_init'):
                leaf.full_init()  # some know their folders only then
            classes = _classes(leaf)
            _check_mark(leaf, leaf_place, classes)
            folders = getattr(leaf, 'folder_to_idx', None)
            if isinstance(folders, dict):
                right = sorted(folders, key=folders.get)
                if _differs_in_order(classes, right):
                    raise UsageError(
                        f'{leaf_place}: the classes are in another order than the folders that they name: '
                        f'{_first_difference(right, classes)}. {type(leaf).__name__} labels folders in sorted order: '
                        f'set classes={right}, and make text anchors anew that were made for the other order'
                    )
            right = _published_classes(leaf)
            if _differs_in_order(classes, right):
                raise UsageError(
                    f'{leaf_place}: the classes are in another order than the labels of {type(leaf).__name__}: '
                    f'{_first_difference(right, classes)}. Leave `classes` out, which gives {right}'
                )
            named.append((leaf_place, classes))
    for index, (place, classes) in enumerate(named):
        for other, right in named[:index]:
            if _differs_in_order(classes, right):
                raise UsageError(
                    f'{place} has the classes of {other} in another order: {_first_difference(right, classes)}. '
                    f'Name them alike, as in {other} if its order is right: classes={right}'
                )


def check_order_of_counts(hooks: List[Hook], datasets: Dict[str, Any]) -> None:
    """Raise a UsageError where ClassCountsHook reads counts of the right classes in another order."""
    for hook in hooks:
        file = getattr(hook, 'file', None)
        if type(hook).__name__ != 'ClassCountsHook' or file is None:
            continue
        try:
            read_class_counts(file, hook.kind)
        except (OSError, ValueError):  # the hook says so itself, if anyone asks for counts
            continue
        right = [str(name) for name in json.loads(get_text(file, encoding='utf-8-sig'))['classes']]
        for place, dataset in datasets.items():
            classes = _classes(dataset)
            if _differs_in_order(classes, right):
                raise UsageError(
                    f'ClassCountsHook(file={file!r}) has the classes of {place} in another order: '
                    f'{_first_difference(right, classes)}. The order of the data is {classes}: write the counts anew '
                    'with tools/dataset_converters/class_counts.py'
                )


def check_order_of_checkpoint(checkpoint: dict, dataset: Any, place: str) -> None:
    """Raise a UsageError where a checkpoint was trained with the classes of a data set of mmseg in another order.

    mmseg puts labels into the order of the names that a config gives for a data set's own, so the names of the
    checkpoint are the order of its outputs. Elsewhere they may have been wrong, and corrected since.
    """
    trained = [str(name) for name in _meta_classes(checkpoint.get('meta', {}).get('dataset_meta'))]
    for leaf, leaf_place in _labelled_leaves(dataset, place):
        maps_labels = hasattr(leaf, 'label_map') and (getattr(leaf, 'METAINFO', None) or {}).get('classes')
        if maps_labels and _differs_in_order(_classes(leaf), trained):
            raise UsageError(
                f'{leaf_place} has the classes of the checkpoint in another order: '
                f'{_first_difference(trained, _classes(leaf))}. Set metainfo=dict(classes={trained})'
            )


def _labelled_leaves(dataset: Any, place: str) -> Iterator[Tuple[Any, str]]:
    """Yield the data sets within wrappers, with their places; of a SemiSupervisedDataset, the labelled ones."""
    if hasattr(dataset, 'labelled'):
        inner = [(dataset.labelled, f'{place}.labelled')]
    else:
        inner = inner_datasets(dataset, place)
    for each, each_place in inner:
        yield from _labelled_leaves(each, each_place)
    if not inner:
        yield dataset, place


def _published_classes(dataset: Any) -> List[str]:
    """Return the classes in the order of the labels that a published data set of mmpretrain comes with, or nothing.

    Lists and folders may number the classes otherwise, and VOC's labels are names. A method of the user may do
    anything.
    """
    kind = type(dataset)
    loads = getattr(kind, 'load_data_list', None)
    if not getattr(loads, '__module__', '').startswith('mmpretrain.') or getattr(dataset, 'ann_file', ''):
        return []
    if hasattr(dataset, 'folder_to_idx'):
        return []
    return [] if kind.__name__ == 'VOC' else [str(name) for name in _meta_classes(getattr(kind, 'METAINFO', None))]


def _meta_classes(metainfo: Any) -> list:
    return list((metainfo or {}).get('classes') or ())


def _classes(dataset: Any) -> List[str]:
    return [str(name) for name in _meta_classes(getattr(dataset, 'metainfo', None))]


def _differs_in_order(classes: List[str], right: List[str]) -> bool:
    return classes != right and sorted(classes) == sorted(right)


def _first_difference(right: List[str], classes: List[str]) -> str:
    label = next(index for index, name in enumerate(classes) if name != right[index])
    return f'label {label} is {right[label]} there, {classes[label]} here'


def _check_mark(dataset: Any, place: str, classes: List[str]) -> None:
    """Raise a UsageError where a toolbox took the byte order mark of a list for a part of its first line."""
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
