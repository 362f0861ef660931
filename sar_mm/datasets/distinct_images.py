"""Which entries of a data set are one image: wrappers such as RepeatDataset show an image several times."""

from collections import Counter
from itertools import chain
from typing import Any, Dict, Hashable, List

from .class_counts import class_counts, count_labels, image_labels, labeled_part
from .views import image_sources


def distinct_class_counts(dataset: Any) -> List[int]:
    """Count the images of every class as :func:`class_counts`, but one that wrappers repeat only once.

    These counts tell a rare class from a common one.
    """
    dataset = labeled_part(dataset)
    indices = distinct_images(dataset)
    if len(indices) == len(dataset):
        return class_counts(dataset)
    labels = image_labels(dataset)
    return count_labels(dataset, list(chain.from_iterable(labels[index] for index in indices)))


def distinct_images(dataset: Any) -> List[int]:
    """Return the first index of every distinct image of a data set, ascending.

    Two entries are one image where wrappers take both from the same entry of a data set, or from entries of several
    data sets with the same ``img_path``; for the wrappers, see :func:`image_sources`.
    """
    sources = image_sources(dataset)
    roots = {id(root): root for root, _ in sources}
    keys = {}
    if len(roots) > 1 and all(hasattr(root, 'get_data_info') for root in roots.values()):
        for root in roots.values():
            seen: Dict[str, int] = Counter()  # a data set may hold several images in one file
            for index in range(len(root)):
                path = root.get_data_info(index).get('img_path')
                if path is not None:
                    keys[id(root), index] = (path, seen[path])
                    seen[path] += 1
    first: Dict[Hashable, int] = {}
    for entry, (root, index) in enumerate(sources):
        first.setdefault(keys.get((id(root), index), (id(root), index)), entry)
    return list(first.values())
