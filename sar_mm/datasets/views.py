"""Data sets that show some images of another one."""

from bisect import bisect_right
from typing import Any, Optional, Tuple

import numpy as np
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset, force_full_init


class DatasetView:
    """Shows some images of a data set. Where the pipeline returns None for one, the next one that it shows is given.

    A subclass sets ``dataset``, ``_fully_initialized`` and, in ``full_init``, ``_indices`` into the data set, (N,).
    One that changes annotations overrides ``get_data_info`` and ``prepare_data``.

    Raises:
        RuntimeError: On use, the pipeline returns None for every image.
    """

    dataset: Any
    _indices: np.ndarray

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return the annotation of an image."""
        return self.dataset.get_data_info(int(self._indices[idx]))

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


def underlying(dataset: Any) -> Tuple[Any, np.ndarray]:
    """Return the data set that views show images of, and the indices of these images in it, (N,)."""
    indices = np.arange(len(dataset))
    while isinstance(dataset, DatasetView):
        dataset.full_init()
        dataset, indices = dataset.dataset, dataset._indices[indices]
    return dataset, indices


def prepare_image(dataset: Any, index: int) -> Optional[Any]:
    """Return what the pipeline makes of an image, None where it returns None.

    ``dataset[index]`` of mmengine's BaseDataset gives any other of all its images then, unless in test mode, where it
    is an error. So does a wrapper around one; other wrappers than mmengine's own are asked as they are.
    """

    def has_method_of(base: type) -> bool:
        return isinstance(dataset, base) and type(dataset).__getitem__ is base.__getitem__

    if has_method_of(DatasetView):
        return dataset.prepare_data(index)
    if has_method_of(ConcatDataset):
        part = bisect_right(dataset.cumulative_sizes, index)
        return prepare_image(dataset.datasets[part], index - (dataset.cumulative_sizes[part - 1] if part else 0))
    if has_method_of(RepeatDataset):
        return prepare_image(dataset.dataset, index % len(dataset.dataset))
    if has_method_of(ClassBalancedDataset):
        return prepare_image(dataset.dataset, dataset.repeat_indices[index])
    if has_method_of(BaseDataset) and not dataset.test_mode:
        return dataset.prepare_data(index)
    return dataset[index]
