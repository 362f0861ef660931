from typing import Dict, Optional, Sequence

import torch

from ..checks import check, check_probability
from ..class_counts import TakesClassCounts
from ..registry import METRICS
from .class_groups import group_means
from .class_iou import ClassIoUMetric


@METRICS.register_module()
class GroupIoUMetric(TakesClassCounts, ClassIoUMetric):
    """ClassIoUMetric that also returns the mean IoU of common, medium and rare classes, in percent.

    The groups go by the classes' shares of the labeled training pixels: ``mIoU/common``, ``mIoU/medium`` and
    ``mIoU/rare``. Classes without a pixel in labels and predictions are left out, and so is a group without classes.

    Args:
        common: Classes with at least this share of the training pixels are common.
        rare: Classes with less than this share are rare; those in between are medium.
        class_counts: Training pixels per class. None: ClassCountsHook sets them.
        **kwargs: Those of IoUMetric.

    Raises:
        ValueError: Shares out of their range or order; class counts that are missing, invalid or not one per class.

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
        self.set_own_counts(class_counts)

    def compute_metrics(self, results: list) -> Dict[str, float]:
        metrics = super().compute_metrics(results)
        if not self.format_only:
            iou = torch.tensor([metrics[f'IoU/{name}'] for name in self.dataset_meta['classes']], dtype=torch.float64)
            counts = torch.tensor(self.checked_class_counts(), dtype=torch.float64)
            share = counts / counts.sum()
            names = ('mIoU/common', 'mIoU/medium', 'mIoU/rare')
            metrics.update(group_means(iou, share >= self.common, share < self.rare, names))
        return metrics
