"""Which entries of a data set are one image: wrappers such as RepeatDataset show an image several times."""

from collections import Counter
from itertools import chain
from typing import Any, List, Tuple

import numpy as np
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from torch.utils.data import Subset

from .class_counts import class_counts, count_classes, image_labels
from .views import DatasetView


def distinct_class_counts(dataset: Any) -> List[int]:
    """Count the distinct images of every class of a classification data set or of a wrapper around one.

    As :func:`class_counts`, but an image that wrappers repeat counts once: what tells a rare class from a common one.

    Args:
        dataset: See :func:`class_counts`.

    Raises:
        ValueError: See :func:`class_counts`.
    """
    dataset = getattr(dataset, 'labelled', dataset)  # the part of a SemiSupervisedDataset
    while isinstance(dataset, RepeatDataset):  # the first round shows every image
        dataset = dataset.dataset
    indices = distinct_images(dataset)
    if len(indices) == len(dataset):
        return class_counts(dataset)
    labels = image_labels(dataset)
    labels = list(chain.from_iterable(labels[index] for index in indices))
    return np.bincount(labels, minlength=count_classes(dataset, labels)).tolist()


def distinct_images(dataset: Any) -> List[int]:
    """Return the first index of every distinct image of a data set, ascending.

    Two entries are one image where wrappers take both from the same entry of a data set, or from entries of several
    data sets with the same ``img_path``. The wrappers are those of mmengine, mmpretrain and mmseg, torch's ``Subset``
    and the views of this package; of any other, each entry is an image.
    """
    first = {}
    for index, key in enumerate(_keys(_sources(dataset))):
        first.setdefault(key, index)
    return list(first.values())


def _sources(dataset: Any) -> List[Tuple[Any, int]]:
    """Return the data set and the index in it that each entry comes from."""
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    if isinstance(dataset, ConcatDataset):
        return list(chain.from_iterable(_sources(part) for part in dataset.datasets))
    inner, indices = getattr(dataset, 'dataset', None), range(len(dataset))
    if isinstance(dataset, RepeatDataset):
        indices = [index % len(inner) for index in indices]
    elif isinstance(dataset, ClassBalancedDataset):
        indices = dataset.repeat_indices
    elif isinstance(dataset, DatasetView):
        indices = dataset._indices.tolist()
    elif isinstance(dataset, Subset):
        indices = dataset.indices
    elif not hasattr(inner, '__len__') or len(inner) != len(dataset):  # else KFoldDataset, MultiImageMixDataset
        return [(dataset, index) for index in indices]
    sources = _sources(inner)
    return [sources[index] for index in indices]


def _keys(sources: List[Tuple[Any, int]]) -> List[Tuple]:
    """Return what is equal for entries that are one image."""
    roots = {id(root): root for root, _ in sources}
    keys = {}
    for root in roots.values() if len(roots) > 1 and all(hasattr(r, 'get_data_info') for r in roots.values()) else ():
        seen = Counter()  # a data set may hold several images in one file
        for index in range(len(root)):
            path = root.get_data_info(index).get('img_path')
            if path is not None:
                keys[id(root), index] = (path, seen[path])
                seen[path] += 1
    return [keys.get((id(root), index), (id(root), index)) for root, index in sources]
