"""Data sets that show some images of another one, and walks through wrapped ones."""

from bisect import bisect_right
from copy import deepcopy
from typing import Any, Iterator, List, Optional, Tuple, Union

import numpy as np
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset, force_full_init
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Subset

from ..checks import check
from .class_counts import full_init


class DatasetView:
    """Base class of data sets that show some images of another one, in their order.

    Where the pipeline returns None for an image, the next image of the view is given, never one that it does not show.
    ``metainfo`` is that of the data set, but ``class_counts`` in it, K integers, are those of the view: they are there
    after loading, if each image has one label.

    A subclass implements :meth:`select`. If it changes annotations, it overrides ``get_data_info`` and
    ``prepare_data``.

    Args:
        dataset: A data set or its config.
        lazy_init: Load on the first use, or when :meth:`full_init` is called, instead of in the constructor.

    Raises:
        ValueError: ``dataset`` is neither a data set nor a config.
        RuntimeError: On use, the pipeline returns None for every image.
    """

    _indices: np.ndarray  # into the data set, (N,) int64
    _labels: Any  # one class index per image, (N,) int64, or a list of them; None where there are none

    def __init__(self, dataset: Union[dict, Any], lazy_init: bool = False) -> None:
        valid = "a data set, or its config: a dict such as dict(type='CIFAR10', ...)"
        check(isinstance(dataset, dict) or hasattr(dataset, 'metainfo'), 'dataset', dataset, valid)
        self.dataset = MMENGINE_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self._class_counts: Optional[Tuple[int, ...]] = None
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def select(self) -> Tuple[np.ndarray, Any, Optional[int]]:
        """Return the indices to show, their labels and, if each image has one label, the number of classes."""
        raise NotImplementedError

    def full_init(self) -> None:
        """Load the data set and select the images."""
        if not self._fully_initialized:
            self._indices, self._labels, num_classes = self.select()
            if num_classes is not None:
                self._class_counts = tuple(np.bincount(self._labels, minlength=num_classes).tolist())
            self._fully_initialized = True

    @property
    def metainfo(self) -> dict:
        """A copy of the metainfo."""
        metainfo = deepcopy(dict(self.dataset.metainfo))
        metainfo.pop('class_counts', None)
        return metainfo if self._class_counts is None else dict(metainfo, class_counts=self._class_counts)

    @property
    @force_full_init
    def indices(self) -> np.ndarray:
        """Indices of the images in the data set, ascending, (N,) int64."""
        return self._indices.copy()

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return the annotation of an image."""
        return self.dataset.get_data_info(int(self._indices[idx]))

    @force_full_init
    def get_cat_ids(self, idx: int) -> List[int]:
        """Return the class indices of an image; a NotImplementedError if images have none, as in segmentation."""
        return np.ravel(self._known_labels()[idx]).tolist()

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Return the class index of every image, (N,) int64; a NotImplementedError if images have none."""
        return np.array(self._known_labels(), dtype=np.int64).reshape(len(self))

    def _known_labels(self) -> Any:
        if self._labels is None:
            raise NotImplementedError(f'{type(self.dataset).__name__} has no labels of images')
        return self._labels

    @force_full_init
    def prepare_data(self, idx: int) -> Optional[Any]:
        """Return what the pipeline makes of an image, None where it returns None."""
        return prepare_image(self.dataset, int(self._indices[idx]))

    @force_full_init
    def __len__(self) -> int:
        return len(self._indices)

    @force_full_init
    def __getitem__(self, idx: int) -> Any:
        first = range(len(self))[idx]  # an IndexError where there is no such image
        for step in range(len(self)):
            # Not `self[...]`: a subclass may override __getitem__ with one that calls this one.
            data = self.prepare_data((first + step) % len(self))
            if data is not None:
                return data
        raise RuntimeError(f'the pipeline returned None for each of the {len(self)} images of {type(self).__name__}')


def inner_datasets(dataset: Any, place: str, part: str = 'labeled') -> List[Tuple[Any, str]]:
    """Return the data sets that a wrapper holds, with their places; a SemiSupervisedDataset holds one per ``part``."""
    if hasattr(dataset, 'unlabeled'):
        return [(getattr(dataset, part), f'{place}.{part}')]
    if isinstance(getattr(dataset, 'datasets', None), (list, tuple)):
        return [(each, f'{place}.datasets.{index}') for index, each in enumerate(dataset.datasets)]
    return [(dataset.dataset, f'{place}.dataset')] if hasattr(dataset, 'dataset') else []


def leaf_datasets(dataset: Any, place: str, part: str = 'labeled') -> Iterator[Tuple[Any, str]]:
    """Yield the data sets within wrappers, with their places; see :func:`inner_datasets`."""
    inner = inner_datasets(dataset, place, part)
    if not inner:
        yield dataset, place
    for each, each_place in inner:
        yield from leaf_datasets(each, each_place, part)


def inner_image(dataset: Any, index: int) -> Optional[Tuple[Any, int]]:
    """Return the data set, and the index in it, that a wrapper takes an image from; None if it is no known wrapper.

    Known are those of mmengine, mmpretrain and mmseg, torch's ``Subset`` and the views of this package.
    """
    full_init(dataset)
    inner = getattr(dataset, 'dataset', None)
    if isinstance(dataset, ConcatDataset):
        part = bisect_right(dataset.cumulative_sizes, index)
        return dataset.datasets[part], index - (dataset.cumulative_sizes[part - 1] if part else 0)
    if isinstance(dataset, RepeatDataset):
        return inner, index % len(inner)
    if isinstance(dataset, ClassBalancedDataset):
        return inner, dataset.repeat_indices[index]
    if isinstance(dataset, DatasetView):
        return inner, int(dataset._indices[index])
    if isinstance(dataset, Subset):
        return inner, int(dataset.indices[index])
    if hasattr(inner, '__len__') and len(inner) == len(dataset):  # KFoldDataset, MultiImageMixDataset
        return inner, index
    return None


def image_sources(dataset: Any) -> List[Tuple[Any, int]]:
    """Return the data set, and the index in it, that each image of nested wrappers is taken from."""
    sources = []
    for index in range(len(dataset)):
        source, inner = (dataset, index), inner_image(dataset, index)
        while inner is not None:
            source, inner = inner, inner_image(*inner)
        sources.append(source)
    return sources


def reads_as(dataset: Any, base: type, *methods: str) -> bool:
    """Tell whether a data set is a ``base`` and has its ``__getitem__`` and other methods."""
    names = ('__getitem__', *methods)
    return isinstance(dataset, base) and all(getattr(type(dataset), name) is getattr(base, name) for name in names)


def prepare_image(dataset: Any, index: int) -> Optional[Any]:
    """Return what the pipeline makes of an image, None where it returns None.

    ``dataset[index]`` would not do: there, mmengine's BaseDataset gives a random other one of all its images. Wrappers
    other than mmengine's own are asked as they are.
    """
    if reads_as(dataset, DatasetView) or reads_as(dataset, BaseDataset) and not dataset.test_mode:
        return dataset.prepare_data(index)
    if any(reads_as(dataset, wrapper) for wrapper in (ConcatDataset, RepeatDataset, ClassBalancedDataset)):
        return prepare_image(*inner_image(dataset, index))
    return dataset[index]


def underlying(dataset: Any) -> Any:
    """Return the data set that views show images of."""
    while isinstance(dataset, DatasetView):
        dataset = dataset.dataset
    return dataset
