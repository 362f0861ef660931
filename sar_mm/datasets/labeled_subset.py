from typing import Any, Callable, List, Optional, Tuple, Union

import numpy as np

from ..checks import UsageError, check, check_choice, check_integer, check_seed, is_number
from ..registry import DATASETS
from .class_counts import count_classes, image_label, image_labels
from .labeled_images import draw_fraction, draw_per_class, read_indices
from .views import DatasetView

PARTS = ('labeled', 'unlabeled')


@DATASETS.register_module()
class LabeledSubset(DatasetView):
    """The labeled or the unlabeled part of a data set, for semi-supervised learning.

    The labeled images are a number or a share of each class, drawn as :func:`draw_per_class` does, or listed in a
    file; the unlabeled ones are all others. Both parts of one data set have the same ``per_class``, ``fraction`` or
    ``file`` and the same ``seed``. The unlabeled part keeps its labels, to measure how good pseudo-labels are. For
    ``metainfo``, and images that the pipeline rejects, see :class:`DatasetView`.

    Args:
        dataset: A data set or its config; with one label per image, unless there is a ``file``. May be a
            :class:`LongTailedDataset`.
        part: ``'labeled'`` or ``'unlabeled'``.
        per_class: Labeled images of each class.
        fraction: In (0, 1]: of the n_k images of class k, round(fraction * n_k) are labeled, at least one.
        file: A file with the indices of the labeled images; see :func:`read_indices`.
        seed: Seed of the draw.
        lazy_init: See :class:`DatasetView`.

    Raises:
        ValueError: A bad argument or file, or a class that has too few images.

    Example::

        subset = dict(type='LabeledSubset', per_class=4)
        cifar10 = dict(type='CIFAR10', data_root='data/cifar10', split='train')
        train_dataloader = dict(
            dataset=dict(
                type='SemiSupervisedDataset',
                labeled=dict(subset, part='labeled', dataset=dict(cifar10, pipeline=labeled_pipeline)),
                unlabeled=dict(subset, part='unlabeled', dataset=dict(cifar10, pipeline=unlabeled_pipeline))))
    """

    def __init__(
        self,
        dataset: Union[dict, Any],
        part: str,
        per_class: Optional[int] = None,
        fraction: Optional[float] = None,
        file: Optional[str] = None,
        seed: int = 0,
        lazy_init: bool = False,
    ) -> None:
        check_choice('part', part, PARTS)
        if per_class is not None:
            check_integer('per_class', per_class, 1)
        if fraction is not None:
            check(is_number(fraction) and 0 < fraction <= 1, 'fraction', fraction, 'a number in (0, 1]')
        options = dict(per_class=per_class, fraction=fraction, file=file)
        given = [name for name, value in options.items() if value is not None]
        if len(given) != 1:
            raise UsageError(f'Expected exactly one of `per_class`, `fraction` and `file`, but got {given or "none"}')
        check_seed(seed)
        self.part = part
        self.per_class = per_class
        self.fraction = fraction
        self.file = file
        self.seed = seed
        super().__init__(dataset, lazy_init)

    def select(self) -> Tuple[np.ndarray, Any, Optional[int]]:
        labeled, labels = self._draw() if self.file is None else self._read()
        indices = labeled
        if self.part == 'unlabeled':
            indices = np.setdiff1d(np.arange(len(self.dataset)), labeled)
        if labels is None:
            return indices, None, None
        shown = [labels[index] for index in indices.tolist()]
        if any(len(label) != 1 for label in shown):
            return indices, shown, None
        single = np.array(shown, dtype=np.int64).reshape(-1)
        return indices, single, count_classes(self.dataset, single)

    def _draw(self) -> Tuple[np.ndarray, np.ndarray]:
        """Return the indices of the labeled images, and the labels of every image, (N, 1)."""
        labels = image_label(self.dataset)
        draw: Callable
        number: Any
        draw, number = (draw_fraction, self.fraction) if self.per_class is None else (draw_per_class, self.per_class)
        num_classes, classes = count_classes(self.dataset, labels), self.dataset.metainfo.get('classes')
        return draw(labels, number, num_classes, self.seed, classes), labels[:, None]

    def _read(self) -> Tuple[np.ndarray, Optional[List[List[int]]]]:
        """Return the indices of the labeled images, and the labels of every image where it has any."""
        indices = np.sort(np.array(read_indices(self.file), dtype=np.int64))
        try:
            labels = image_labels(self.dataset)
        except ValueError:  # a list of images needs no labels
            labels = None
        if indices[-1] >= len(self.dataset):
            name = type(self.dataset).__name__
            raise UsageError(f'{self.file} lists image {indices[-1]}, but {name} has {len(self.dataset)} images')
        return indices, labels
