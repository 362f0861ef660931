from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_dist_info
from mmengine.evaluator import BaseMetric
from torch import Tensor

from ..analysis import FeatureStatistics, geometry
from ..checks import check, check_integer
from ..ops import nearest_labels
from ..registry import METRICS
from .group_accuracy import single_label


@METRICS.register_module()
class FeatureGeometry(BaseMetric):
    """Geometry of the features in front of the classifier: scatter, cosines, distance to the anchors, neural collapse.

    Needs a FeatureTapHook, which passes it the features of a model with or without semantic anchors. One pass, O(K * C)
    memory; several processes return the numbers of one. For the numbers, see :func:`sar_mm.analysis.geometry`.

    Args:
        ignore_index: Label of segmentation that is left out; for classification nothing is.
        prefix: Put in front of the names of the results; None: ``geometry``.

    Raises:
        RuntimeError: No feature arrived, or not one per image.
        ValueError: The data set does not name its classes, labels that are not one per image or pixel.

    Example::

        custom_hooks = [dict(type='FeatureTapHook')]
        test_evaluator = [dict(type='Accuracy'), dict(type='FeatureGeometry')]
    """

    default_prefix = 'geometry'
    needs_one_label = True  # of an image; a multi-label head is an error before training

    def __init__(self, ignore_index: int = 255, prefix: Optional[str] = None) -> None:
        super().__init__(prefix=prefix)
        check_integer('ignore_index', ignore_index, minimum=0)
        self.ignore_index = ignore_index
        self._forget()

    def _forget(self) -> None:
        self.statistics: Optional[FeatureStatistics] = None
        self.classifier_weight: Optional[Tensor] = None
        self.anchors: Optional[Tensor] = None
        self._observed: List[Tensor] = []
        self._images = 0
        self._last: Optional[Tuple[Tensor, Tensor]] = None

    def observe(self, feature: Tensor) -> None:
        """Take the classifier's input of a forward pass, (N, C) or (N, C, H, W)."""
        self._observed.append(feature)

    def set_reference(self, classifier_weight: Optional[Tensor], anchors: Optional[Tensor]) -> None:
        """Take the weight of the classifier, (K, C), and the semantic anchors, (K, C), as far as there are any."""
        self.classifier_weight = classifier_weight
        self.anchors = anchors

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Add the features of a batch with its labels.

        Args:
            data_batch: Not used.
            data_samples: Dicts with ``gt_label`` or ``gt_sem_seg``.
        """
        observed, self._observed = self._observed, []
        if len(observed) != 1 or len(observed[0]) != len(data_samples):
            raise RuntimeError(self._wrong_number(observed, len(data_samples)))
        feature = observed[0]
        if 'gt_sem_seg' in data_samples[0]:
            target = torch.stack([self._label_map(sample, feature.shape[2:]) for sample in data_samples])
        else:
            check(feature.dim() == 2, 'feature', tuple(feature.shape), '(N, C) for the labels of images')
            target = torch.stack([single_label(sample) for sample in data_samples])
        # Samplers repeat an image to give all processes the same number. Only the last image can be such a one, and
        # only evaluate() gets the number of images that tells.
        if self._last is not None:
            self.update(*self._last)
        if len(target) > 1:
            self.update(feature[:-1], target[:-1])
        self._last = feature[-1:].clone(), target[-1:]
        self._images += len(target)

    def update(self, feature: Tensor, target: Tensor) -> None:
        """Add labeled features, (N, C) with (N,) or (N, C, H, W) with (N, H, W); labels below 0 are left out."""
        if self.statistics is None:
            self.statistics = FeatureStatistics(self.num_classes, feature.shape[1])
        self.statistics.update(feature, target)

    @property
    def num_classes(self) -> int:
        classes = (self.dataset_meta or {}).get('classes')
        check(classes is not None, 'metainfo', self.dataset_meta, "one with the data set's `classes`")
        return len(classes)

    def evaluate(self, size: int) -> Dict[str, float]:
        """Return the geometry of all features of all processes, and forget them.

        Args:
            size: Images in the data set.
        """
        rank, world_size = get_dist_info()
        if self._last is not None and (self._images - 1) * world_size + rank < size:
            self.update(*self._last)
        # A process without an image takes part in the reductions, too.
        channels = torch.tensor(0 if self.statistics is None else self.statistics.channels)
        all_reduce(channels, op='max')
        if channels == 0:
            raise RuntimeError(self._wrong_number([], size))
        if self.statistics is None:
            self.statistics = FeatureStatistics(self.num_classes, int(channels))
        metrics = self.compute_metrics([self.statistics.reduce()])
        self._forget()
        return {f'{self.prefix}/{name}': value for name, value in metrics.items()}

    def compute_metrics(self, results: List[FeatureStatistics]) -> Dict[str, float]:
        """Return the geometry of the statistics of all processes."""
        statistics = results[0]
        weight = self.classifier_weight
        if weight is not None and weight.shape != statistics.mean.shape:
            weight = None  # several rows per class (sub-centres) have no counterpart in the class means
        return geometry(statistics, weight, self.anchors)

    def _label_map(self, sample: dict, size: Sequence[int]) -> Tensor:
        """Return the label map of a sample in the size of the feature map, with -1 where nothing counts."""
        labels = sample['gt_sem_seg']['data'].long()
        labels = labels.masked_fill(labels == self.ignore_index, -1)
        left, right, top, bottom = sample.get('img_padding_size', (0, 0, 0, 0))
        if left or right or top or bottom:
            # The feature map covers the padding of the image; labels come without it, and in the original size.
            height, width = sample['img_shape'][:2]
            y, x = labels.shape[-2] / height, labels.shape[-1] / width
            labels = F.pad(labels, (round(left * x), round(right * x), round(top * y), round(bottom * y)), value=-1)
        return nearest_labels(labels, size)[0]

    def _wrong_number(self, observed: List[Tensor], images: int) -> str:
        name = type(self).__name__
        if not observed:
            return (
                f"{name} saw no feature: add dict(type='FeatureTapHook') to custom_hooks of the config; if it is "
                'there, inference does not use the layer it taps: name another one with its argument `layer`'
            )
        shapes = ', '.join(str(tuple(feature.shape)) for feature in observed)
        return (
            f'{name} needs one forward pass for a batch of {images} images, but saw features of shape {shapes}: use '
            "test_cfg=dict(mode='whole') instead of mode='slide', and no test-time augmentation"
        )
