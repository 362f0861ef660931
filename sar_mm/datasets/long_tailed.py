import math
from numbers import Integral
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from ..checks import UsageError, check, check_choice, check_integer, check_seed, is_number
from ..registry import DATASETS
from .class_counts import count_labels, image_label
from .labeled_images import class_name, draw_per_class
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
    """A long-tailed view of a classification data set: it shows some images of each class.

    The images of a class are the first n of a permutation that depends on the seed and on the images of this class
    only: see :func:`draw_per_class`. A weaker imbalance shows the images of a stronger one and more. The profiles are
    those of Cui et al. (CVPR 2019) and Cao et al. (NeurIPS 2019); :func:`long_tailed_counts` has the formulas. For
    ``metainfo``, and images that the pipeline rejects, see :class:`DatasetView`.

    Args:
        dataset: A data set with one label per image, or its config.
        imbalance_factor: Images of the most frequent class over images of the least frequent one, at least 1.
        profile: ``'exponential'`` or ``'step'``.
        max_per_class: Images of the most frequent class. None: the largest number for which all classes have enough
            images; with classes of one size, that size.
        class_order: The classes from the most to the least frequent one. None: 0, 1, ..., K - 1.
        seed: Seed of the draw.
        lazy_init: See :class:`DatasetView`.

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
        super().__init__(dataset, lazy_init)

    def select(self) -> Tuple[np.ndarray, np.ndarray, int]:
        labels = image_label(self.dataset)
        counts = self._counts_to_draw(count_labels(self.dataset, labels))
        indices = draw_per_class(labels, counts, len(counts), self.seed)
        return indices, labels[indices], len(counts)

    def _counts_to_draw(self, available: List[int]) -> List[int]:
        """Return the images to draw of each class, by class index."""
        order = list(range(len(available))) if self.class_order is None else list(self.class_order)
        valid = f'a permutation of the {len(available)} class indices of the data set'
        check(len(order) == len(available), 'class_order', self.class_order, valid)
        names = [class_name(label, self.dataset.metainfo.get('classes')) for label in range(len(order))]
        for label in order:
            if available[label] == 0:
                raise UsageError(f'{names[label]} has no image in {type(self.dataset).__name__}')

        def profile(largest: int) -> Dict[int, int]:
            counts = long_tailed_counts(len(order), largest, self.imbalance_factor, self.profile)
            return dict(zip(order, counts))

        def lacks(largest: int) -> List[int]:
            return [label for label, count in profile(largest).items() if count > available[label]]

        largest = self.max_per_class
        if largest is None:
            largest, beyond = 0, available[order[0]] + 1  # counts grow with n_max: bisection
            while beyond - largest > 1:
                middle = (largest + beyond) // 2
                largest, beyond = (largest, middle) if lacks(middle) else (middle, beyond)
        counts = profile(largest)
        settings = f'max_per_class={largest}, imbalance_factor={self.imbalance_factor}'
        for label in lacks(largest):
            raise UsageError(
                f'{names[label]} has {available[label]} images, but {counts[label]} are needed with {settings}'
            )
        for label in order:
            if counts[label] == 0:
                raise UsageError(f'{names[label]} would get 0 images with {settings}')
        return [counts[label] for label in range(len(order))]
