import math
from copy import deepcopy
from numbers import Integral
from typing import Any, List, Optional, Sequence, Union

import numpy as np
from mmengine.dataset import force_full_init
from mmengine.registry import DATASETS as MMENGINE_DATASETS

from ..checks import check, check_choice, check_integer, check_seed, is_number
from ..registry import DATASETS
from .class_counts import check_dataset, count_classes, image_label
from .labelled_images import draw_per_class
from .views import DatasetView

PROFILES = ('exponential', 'step')


def long_tailed_counts(
    num_classes: int, largest: int, imbalance_factor: float, profile: str = 'exponential'
) -> List[int]:
    """Return the images per class of a long-tailed profile, from the most to the least frequent class.

    Args:
        num_classes: K, at least 2.
        largest: n_max, images of the most frequent class.
        imbalance_factor: IF, at least 1, the ratio of the most to the least frequent class.
        profile: ``'exponential'``: n_k = int(n_max * IF^(-k / (K - 1))), k = 0, ..., K - 1. ``'step'``: n_max in the
            first K // 2 classes and int(n_max / IF) in the others.
    """
    check_integer('num_classes', num_classes, 2)
    if profile == 'step':
        half = num_classes // 2
        return [largest] * half + [int(largest / imbalance_factor)] * (num_classes - half)
    # Dividing by the power instead of multiplying by its inverse makes the last count exact: 300 / 3 is 100.
    return [int(largest / imbalance_factor ** (k / (num_classes - 1))) for k in range(num_classes)]


@DATASETS.register_module()
class LongTailedDataset(DatasetView):
    """A long-tailed view of a classification data set, of which it shows some images of each class.

    The images of a class are drawn without replacement, by a generator of its own: they depend on the seed and on the
    images of this class only, not on other classes or on the global random state. The first n of a fixed permutation
    are taken, so a weaker imbalance shows the images of a stronger one and more. The order of the images stays.
    Where a pipeline returns None for an image, the next image of this view is given, never one that it does not show.

    The profiles are those of Cui et al. (CVPR 2019) and Cao et al. (NeurIPS 2019); :func:`long_tailed_counts` has the
    formulas. ``metainfo`` is that of the data set and, once initialised, ``class_counts``: K integers by class index.

    Args:
        dataset: A data set with one label per image, or its config.
        imbalance_factor: Images of the most frequent class over images of the least frequent one, at least 1.
        profile: ``'exponential'`` or ``'step'``.
        max_per_class: Images of the most frequent class. None takes the largest number for which all classes have
            enough; where all classes are of the same size, that is the size.
        class_order: The classes from the most to the least frequent one. None is 0, 1, ..., K - 1.
        seed: Of the drawing.
        lazy_init: Whether to put off loading until the data set is used, or :meth:`full_init` is called.

    Raises:
        ValueError: A bad argument, a class that is missing or has too few images, or one that would get none.

    Example::

        train_dataloader = dict(
            dataset=dict(
                type='LongTailedDataset',
                imbalance_factor=100,
                dataset=dict(type='CIFAR10', data_root='data/cifar10', split='train', pipeline=train_pipeline)))
    """

    def __init__(
        self,
        dataset: Union[dict, Any],
        imbalance_factor: float,
        profile: str = 'exponential',
        max_per_class: Optional[int] = None,
        class_order: Optional[Sequence[int]] = None,
        seed: int = 0,
        lazy_init: bool = False,
    ) -> None:
        check_dataset(dataset)
        is_factor = is_number(imbalance_factor) and 1 <= imbalance_factor < math.inf
        check(is_factor, 'imbalance_factor', imbalance_factor, 'a finite number of at least 1')
        check_choice('profile', profile, PROFILES)
        if max_per_class is not None:
            check_integer('max_per_class', max_per_class, 1)
        if class_order is not None:
            is_order = isinstance(class_order, Sequence) and all(isinstance(label, Integral) for label in class_order)
            is_order = is_order and sorted(class_order) == list(range(len(class_order)))
            check(is_order, 'class_order', class_order, 'a permutation of the class indices 0, ..., K - 1')
        check_seed(seed)
        self.imbalance_factor = imbalance_factor
        self.profile = profile
        self.max_per_class = max_per_class
        self.class_order = class_order
        self.seed = seed
        self.dataset = MMENGINE_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self._metainfo = dict(self.dataset.metainfo)
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """A copy of the wrapped metainfo and, once initialised, ``class_counts``."""
        return deepcopy(self._metainfo)

    def full_init(self) -> None:
        """Load the data set and draw the images."""
        if self._fully_initialized:
            return
        labels = image_label(self.dataset)
        available = np.bincount(labels, minlength=count_classes(self.dataset, labels)).tolist()
        counts = self._class_counts(available)
        self._indices = draw_per_class(labels, counts, len(counts), self.seed)
        self._labels = labels[self._indices]
        # Some data sets know their classes only after loading.
        self._metainfo = dict(self.dataset.metainfo, class_counts=tuple(counts))
        self._fully_initialized = True

    def _class_counts(self, available: List[int]) -> List[int]:
        """Return the images to draw of each class, by class index."""
        order = list(range(len(available))) if self.class_order is None else list(self.class_order)
        valid = f'a permutation of the {len(available)} class indices of the data set'
        check(len(order) == len(available), 'class_order', self.class_order, valid)
        for label in order:
            if available[label] == 0:
                raise ValueError(f'{self._describe(label)} has no image in {type(self.dataset).__name__}')

        def profile(largest: int) -> List[int]:
            return long_tailed_counts(len(order), largest, self.imbalance_factor, self.profile)

        def lacks(largest: int) -> List[int]:
            return [label for label, count in zip(order, profile(largest)) if count > available[label]]

        largest = self.max_per_class
        if largest is None:
            largest, beyond = 0, available[order[0]] + 1  # counts grow with n_max: bisection
            while beyond - largest > 1:
                middle = (largest + beyond) // 2
                largest, beyond = (largest, middle) if lacks(middle) else (middle, beyond)
        counts = dict(zip(order, profile(largest)))
        settings = f'max_per_class={largest}, imbalance_factor={self.imbalance_factor}'
        for label in lacks(largest):
            raise ValueError(
                f'{self._describe(label)} has {available[label]} images, but {counts[label]} are needed with {settings}'
            )
        for label in order:
            if counts[label] == 0:
                raise ValueError(f'{self._describe(label)} would get 0 images with {settings}')
        return [counts[label] for label in range(len(order))]

    def _describe(self, label: int) -> str:
        classes = self.dataset.metainfo.get('classes')
        return f'class {label}' if classes is None else f'class {label} ({classes[label]})'

    @force_full_init
    def get_cat_ids(self, idx: int) -> List[int]:
        """Return the class index of an image, in a list."""
        return [int(self._labels[idx])]

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Return the class indices of all images, (N,) int64."""
        return self._labels.copy()
