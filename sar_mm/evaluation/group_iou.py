from typing import Dict, List, Optional, Sequence

import numpy as np

from ..checks import check, check_probability
from ..registry import METRICS
from .class_iou import ClassIoUMetric
from .counted_classes import CountedClasses


@METRICS.register_module()
class GroupIoUMetric(CountedClasses, ClassIoUMetric):
    """ClassIoUMetric that also returns the mean IoU of common, medium and rare classes, in percent.

    The groups go by the classes' shares of the labelled training pixels: ``mIoU/common``, ``mIoU/medium`` and
    ``mIoU/rare``. Classes without a pixel in labels and predictions are left out, and so is a group without classes.

    Args:
        common: Classes with at least this share of the training pixels are common.
        rare: Classes with less than this share are rare; those in between are medium.
        class_counts: Training pixels per class. None: ClassCountsHook sets them.
        **kwargs: Those of IoUMetric.

    Raises:
        ValueError: Shares out of their range or order, counts that are none or not those of the classes.
        RuntimeError: Nobody said how often the classes are in the training data.

    Example::

        custom_hooks = [dict(type='ClassCountsHook', file='data/camvid/class_counts.json')]
        val_evaluator = test_evaluator = dict(type='GroupIoUMetric', iou_metrics=['mIoU'])
    """

    def __init__(
        self, common: float = 0.05, rare: float = 0.01, class_counts: Optional[Sequence[int]] = None, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        check_probability('common', common, ends=True)
        check_probability('rare', rare, ends=True)
        check(rare <= common, 'rare', rare, f'at most common = {common}')
        self.common = common
        self.rare = rare
        self.init_class_counts(class_counts)

    def compute_metrics(self, results: list) -> Dict[str, float]:
        metrics = super().compute_metrics(results)
        if not self.format_only:
            iou = np.array([metrics[f'IoU/{name}'] for name in self.dataset_meta['classes']])
            metrics.update(self._group_means(iou, self.checked_class_counts()))
        return metrics

    def _group_means(self, iou: np.ndarray, counts: List[int]) -> Dict[str, float]:
        share = np.array(counts) / sum(counts)
        is_common, is_rare = share >= self.common, share < self.rare
        groups = dict(common=is_common, medium=~is_common & ~is_rare, rare=is_rare)
        members = {name: iou[group & ~np.isnan(iou)] for name, group in groups.items()}
        return {f'mIoU/{name}': values.mean().item() for name, values in members.items() if len(values)}
