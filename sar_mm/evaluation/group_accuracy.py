from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from ..checks import check, check_flag, check_integer
from ..class_counts import TakesClassCounts
from ..registry import METRICS
from .class_groups import group_means


@METRICS.register_module()
class GroupAccuracy(TakesClassCounts, BaseMetric):
    """Accuracy of many-, medium- and few-shot classes, and balanced accuracy, in percent.

    Returns ``accuracy`` (share of samples classified right), ``balanced_accuracy`` (mean over the classes of the share
    of their samples classified right, the recall), and the same mean over groups of classes, ``many``, ``medium`` and
    ``few``. Classes without a test sample are left out, and so is a group without classes.

    Args:
        many: Classes with more training images than this are many-shot.
        few: Classes with fewer training images than this are few-shot; those in between are medium-shot. The defaults
            are those of Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019.
        class_counts: Training images per class. None: ClassCountsHook sets them.
        per_class: Return the accuracy of every class, too, as ``accuracy/<class name>``.
        collect_device: Where results of several processes are collected, 'cpu' or 'gpu'.
        prefix: Put in front of the names of the results.

    Raises:
        ValueError: Thresholds out of order; class counts that are missing, invalid or not one per class; a sample
            whose label is no class, or that has several.

    Example::

        custom_hooks = [dict(type='ClassCountsHook')]
        val_evaluator = test_evaluator = [dict(type='Accuracy', topk=(1,)), dict(type='GroupAccuracy')]
    """

    needs_one_label = True  # of an image; a multi-label head is an error before training

    def __init__(
        self,
        many: int = 100,
        few: int = 20,
        class_counts: Optional[Sequence[int]] = None,
        per_class: bool = False,
        collect_device: str = 'cpu',
        prefix: Optional[str] = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_integer('few', few, minimum=0)
        check_integer('many', many, minimum=0)
        # With many = few - 2, a class of few - 1 images would be in both groups.
        check(many >= few - 1, 'many', many, f'at least few - 1 = {few - 1}')
        check_flag('per_class', per_class)
        self.many = many
        self.few = few
        self.per_class = per_class
        self.set_own_counts(class_counts)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep prediction and label of each sample.

        Args:
            data_batch: Not used.
            data_samples: Dicts with ``gt_label`` and with ``pred_score`` (K,) or ``pred_label``.
        """
        for sample in data_samples:
            if 'pred_score' in sample:
                prediction = torch.as_tensor(sample['pred_score']).argmax()
            else:
                prediction = torch.as_tensor(sample['pred_label'])
            self.results.append((int(prediction), int(single_label(sample))))

    def compute_metrics(self, results: List[Tuple[int, int]]) -> Dict[str, float]:
        """Compute the metrics of (prediction, label) pairs."""
        counts = torch.tensor(self.checked_class_counts())
        prediction, label = torch.tensor(results).t()
        highest = int(label.max())
        check(int(label.min()) >= 0 and highest < len(counts), 'gt_label', highest, f'a class in [0, {len(counts)})')
        right = label[prediction == label].bincount(minlength=len(counts))
        recall = 100 * right.double() / label.bincount(minlength=len(counts))  # NaN for a class without a sample
        metrics = dict(accuracy=100 * right.sum().item() / len(label), balanced_accuracy=recall.nanmean().item())
        metrics.update(group_means(recall, counts > self.many, counts < self.few, ('many', 'medium', 'few')))
        if self.per_class:
            names = (self.dataset_meta or {}).get('classes', range(len(counts)))
            metrics.update({f'accuracy/{name}': value.item() for name, value in zip(names, recall)})
        return metrics


def single_label(sample: dict) -> Tensor:
    """Return the class index of a data sample, a scalar; a ValueError where it has none or several."""
    label = torch.as_tensor(sample['gt_label']).flatten()
    check(len(label) == 1, 'gt_label', label.tolist(), 'one label per sample, as in single-label classification')
    return label[0]
