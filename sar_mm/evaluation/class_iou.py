from typing import Dict

from mmseg.evaluation import IoUMetric

from ..registry import METRICS


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """mmseg's IoUMetric that also returns the IoU of every class, in percent, as ``IoU/<class name>``.

    Takes the arguments of IoUMetric. A class without a pixel in labels and predictions is NaN.

    Example::

        test_evaluator = dict(type='ClassIoUMetric', iou_metrics=['mIoU'])
    """

    def compute_metrics(self, results: list) -> Dict[str, float]:
        metrics = super().compute_metrics(results)
        if not self.format_only:
            intersect, union = (sum(areas) for areas in list(zip(*results))[:2])
            iou = 100 * intersect / union
            metrics.update({f'IoU/{name}': value.item() for name, value in zip(self.dataset_meta['classes'], iou)})
        return metrics
