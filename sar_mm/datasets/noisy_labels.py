from typing import Any, Optional, Tuple, Union

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init

from ..checks import check, check_choice, check_integer, check_seed, is_number
from ..registry import DATASETS
from .class_counts import count_classes, image_label
from .views import DatasetView, reads_as

KINDS = ('symmetric', 'pairwise')


def flip_labels(
    labels: np.ndarray, num_classes: int, rate: float, kind: str = 'symmetric', seed: int = 0
) -> np.ndarray:
    """Return labels of which round(rate * n_k) of each class k are wrong; see :class:`NoisyLabels`.

    Args:
        labels: Class index of every image, (N,).
        num_classes: K, at least 2.
        rate: In [0, 1).
        kind: ``'symmetric'`` or ``'pairwise'``.
        seed: Seed of the draw.
    """
    check_integer('num_classes', num_classes, 2)
    noisy = labels.copy()
    for label in range(num_classes):
        generator = np.random.default_rng([seed, label])
        images = generator.permutation(np.flatnonzero(labels == label))
        # Drawn for all images of the class, so that a wrong label is the same one at every rate.
        steps = generator.integers(1, num_classes, len(images)) if kind == 'symmetric' else np.ones_like(images)
        changed = round(float(rate) * len(images))
        noisy[images[:changed]] = (label + steps[:changed]) % num_classes
    return noisy


@DATASETS.register_module()
class NoisyLabels(DatasetView):
    """A view of a classification data set that gives some images a wrong label, to measure robustness to label noise.

    Of the n_k images of class k, exactly round(rate * n_k) are changed. Which ones depends on the seed and on the
    images of this class only. A higher rate changes the images of a lower one, to the same labels, and more.

    - ``'symmetric'`` noise (van Rooyen et al., NeurIPS 2015) changes a label to one of the K - 1 other classes, each
      with the same probability, so ``rate`` is the share of wrong labels. Others draw the label from all K classes,
      the right one included: their rate r is ``rate=r * (K - 1) / K`` here.
    - ``'pairwise'`` noise (pair flip; Han et al., "Co-teaching", NeurIPS 2018) changes class k to (k + 1) mod K.

    The label is changed before the pipeline; labels and class counts of all methods are the noisy ones. For
    ``metainfo``, and images that the pipeline rejects, see :class:`DatasetView`.

    Put views, RepeatDataset, ClassBalancedDataset, ConcatDataset and SemiSupervisedDataset around it; a ConcatDataset
    needs ``ignore_keys='class_counts'``, since its parts differ in them. A :class:`LabeledSubset` draws by the labels
    that it sees: both parts of a data set go inside the noise, or both around noise of the same arguments.

    Args:
        dataset: A data set with one label per image, or its config: mmengine's BaseDataset, whose ``get_data_info``
            has a ``gt_label``, or views of one such as :class:`LongTailedDataset` and :class:`LabeledSubset`.
        rate: Share of the images of each class that get a wrong label, in [0, 1).
        kind: ``'symmetric'`` or ``'pairwise'``.
        seed: Seed of the draw.
        lazy_init: See :class:`DatasetView`.

    Raises:
        ValueError: A bad argument, a data set whose labels cannot be changed before its pipeline, or one of fewer than
            two classes.

    Example::

        train_dataloader = dict(
            dataset=dict(
                type='NoisyLabels',
                rate=0.4,
                dataset=dict(type='CIFAR10', data_root='data/cifar10', split='train', pipeline=train_pipeline)))
    """

    def __init__(
        self,
        dataset: Union[dict, Any],
        rate: float,
        kind: str = 'symmetric',
        seed: int = 0,
        lazy_init: bool = False,
    ) -> None:
        check(is_number(rate) and 0 <= rate < 1, 'rate', rate, 'a number in [0, 1)')
        check_choice('kind', kind, KINDS)
        check_seed(seed)
        self.rate = rate
        self.kind = kind
        self.seed = seed
        super().__init__(dataset, lazy_init=True)
        self._images = _images_of(self.dataset)
        if not lazy_init:
            self.full_init()

    def select(self) -> Tuple[np.ndarray, Any, Optional[int]]:
        self._clean_labels = image_label(self.dataset)
        num_classes = count_classes(self.dataset, self._clean_labels)
        name = type(self._images).__name__
        check(num_classes >= 2, 'dataset', name, 'of at least 2 classes, to take a wrong one')
        has_key = len(self.dataset) == 0 or 'gt_label' in self.dataset.get_data_info(0)
        check(has_key, 'dataset', name, "one whose get_data_info(idx) has a 'gt_label' to change")
        labels = flip_labels(self._clean_labels, num_classes, self.rate, self.kind, self.seed)
        return np.arange(len(labels)), labels, num_classes

    @property
    @force_full_init
    def clean_labels(self) -> np.ndarray:
        """Labels of the wrapped data set, (N,) int64."""
        return self._clean_labels.copy()

    @property
    @force_full_init
    def is_noisy(self) -> np.ndarray:
        """Whether the label of an image differs from that of the wrapped data set, (N,) bool."""
        return self._labels != self._clean_labels

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return the annotation of an image, with the noisy label."""
        return dict(super().get_data_info(idx), gt_label=int(self._labels[idx]))

    def prepare_data(self, idx: int) -> Optional[Any]:
        """Return what the pipeline makes of an image with its noisy label, None where it returns None."""
        data = self._images.pipeline(self.get_data_info(idx))
        if data is None and self._images.test_mode:  # an error in mmengine's BaseDataset, too
            raise RuntimeError(f'the pipeline returned None for image {idx} of NoisyLabels in test mode')
        return data


def _images_of(dataset: Any) -> BaseDataset:
    """Return the data set that views show images of, without loading it.

    Raises:
        ValueError: A class between here and the pipeline reads images in its own way, which would be left out.
    """

    while any(reads_as(dataset, view, 'prepare_data') for view in (DatasetView, NoisyLabels)):
        dataset = dataset.dataset
    valid = (
        "mmengine's BaseDataset with its own __getitem__ and prepare_data, or a LongTailedDataset or LabeledSubset of "
        'one: the label is changed before its pipeline (of wrappers such as RepeatDataset, ConcatDataset and '
        'ClassBalancedDataset, put NoisyLabels inside)'
    )
    check(reads_as(dataset, BaseDataset, 'prepare_data'), 'dataset', type(dataset).__name__, valid)
    return dataset
