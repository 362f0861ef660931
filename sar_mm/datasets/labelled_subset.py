from copy import deepcopy
from typing import Any, List, Optional, Tuple, Union

import numpy as np
from mmengine.dataset import force_full_init
from mmengine.registry import DATASETS as MMENGINE_DATASETS

from ..checks import check, check_choice, check_integer, check_seed, is_number
from ..registry import DATASETS
from .class_counts import check_dataset, count_classes, image_label, image_labels
from .labelled_images import draw_fraction, draw_per_class, read_indices
from .views import DatasetView

PARTS = ('labelled', 'unlabelled')


@DATASETS.register_module()
class LabelledSubset(DatasetView):
    """The labelled or the unlabelled part of a data set, for semi-supervised learning.

    The labelled images are a number or a share of each class, or listed in a file; the unlabelled ones are all others.
    Both parts of one data set have the same ``per_class``, ``fraction`` or ``file`` and the same ``seed``. Images are
    drawn as :func:`draw_per_class` does, whatever the global random state is, and their order stays. The unlabelled
    part keeps its labels, if only to tell how good pseudo-labels are.

    ``metainfo`` is that of the data set and, once initialised and with one label per image, ``class_counts`` of this
    part. Where a pipeline returns None for an image, the next image of this part is given, never one of the other.

    Args:
        dataset: A data set or its config; with one label per image, unless there is a ``file``. May be a
            :class:`LongTailedDataset`.
        part: ``'labelled'`` or ``'unlabelled'``.
        per_class: Labelled images of each class.
        fraction: In (0, 1]: of the n_k images of class k, round(fraction * n_k) are labelled, at least one.
        file: A file with the indices of the labelled images; see :func:`read_indices`.
        seed: Of the drawing.
        lazy_init: Whether to put off loading until the data set is used, or :meth:`full_init` is called.

    Raises:
        ValueError: A bad argument or file, or a class that has too few images.

    Example::

        train_dataloader = dict(
            dataset=dict(
                type='SemiSupervisedDataset',
                labelled=dict(
                    type='LabelledSubset',
                    part='labelled',
                    per_class=4,
                    dataset=dict(type='CIFAR10', data_root='data/cifar10', split='train', pipeline=labelled_pipeline)),
                unlabelled=dict(
                    type='LabelledSubset',
                    part='unlabelled',
                    per_class=4,
                    dataset=dict(
                        type='CIFAR10', data_root='data/cifar10', split='train', pipeline=unlabelled_pipeline))))
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
        check_dataset(dataset)
        check_choice('part', part, PARTS)
        given = [
            name for name, value in dict(per_class=per_class, fraction=fraction, file=file).items() if value is not None
        ]
        if per_class is not None:
            check_integer('per_class', per_class, 1)
        if fraction is not None:
            is_share = is_number(fraction) and 0 < fraction <= 1
            check(is_share, 'fraction', fraction, 'a number in (0, 1]')
        if len(given) != 1:
            raise ValueError(f'Expected exactly one of `per_class`, `fraction` and `file`, but got {given or "none"}')
        check_seed(seed)
        self.part = part
        self.per_class = per_class
        self.fraction = fraction
        self.file = file
        self.seed = seed
        self.dataset = MMENGINE_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self._metainfo = dict(self.dataset.metainfo)
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """A copy of the wrapped metainfo; once initialised, ``class_counts`` in it are those of this part."""
        return deepcopy(self._metainfo)

    @property
    @force_full_init
    def indices(self) -> np.ndarray:
        """Indices into the wrapped data set, ascending, (N,) int64."""
        return self._indices.copy()

    def full_init(self) -> None:
        """Load the data set and draw or read the labelled images."""
        if self._fully_initialized:
            return
        labelled, labels = self._draw() if self.file is None else self._read()
        everything = np.arange(len(self.dataset))
        self._indices = labelled if self.part == 'labelled' else np.setdiff1d(everything, labelled)
        self._labels = None if labels is None else [labels[index] for index in self._indices.tolist()]
        self._metainfo = dict(self.dataset.metainfo)  # some data sets know their classes only after loading
        self._metainfo.pop('class_counts', None)
        if self._labels is not None and all(len(label) == 1 for label in self._labels):
            labels = [label for (label,) in self._labels]
            counts = np.bincount(np.array(labels, dtype=np.int64), minlength=count_classes(self.dataset, labels))
            self._metainfo['class_counts'] = tuple(counts.tolist())
        self._fully_initialized = True

    def _draw(self) -> Tuple[np.ndarray, List[List[int]]]:
        """Return the indices of the labelled images, and the labels of every image."""
        labels = image_label(self.dataset)
        options = (count_classes(self.dataset, labels), self.seed, self.dataset.metainfo.get('classes'))
        if self.fraction is None:
            return draw_per_class(labels, self.per_class, *options), labels[:, None].tolist()
        return draw_fraction(labels, self.fraction, *options), labels[:, None].tolist()

    def _read(self) -> Tuple[np.ndarray, Optional[List[List[int]]]]:
        """Return the indices of the labelled images, and the labels of every image where it has any."""
        indices = np.sort(np.array(read_indices(self.file), dtype=np.int64))
        try:
            labels = image_labels(self.dataset)
        except ValueError:  # a list of images needs no labels
            labels = None
        if indices[-1] >= len(self.dataset):
            name = type(self.dataset).__name__
            raise ValueError(f'{self.file} lists image {indices[-1]}, but {name} has {len(self.dataset)} images')
        return indices, labels

    @force_full_init
    def get_cat_ids(self, idx: int) -> List[int]:
        """Return the class indices of an image; a NotImplementedError where images have none, as in segmentation."""
        return list(self._checked_labels()[idx])

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Return the class indices of all images, (N,) int64; errors as :meth:`get_cat_ids`."""
        return np.array(self._checked_labels(), dtype=np.int64).reshape(len(self))

    def _checked_labels(self) -> List[List[int]]:
        if self._labels is None:
            raise NotImplementedError(f'{type(self.dataset).__name__} has no labels of images')
        return self._labels
