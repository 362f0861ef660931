from inspect import signature
from typing import Any, Dict, Sequence, Union

from mmseg.evaluation import IoUMetric

from ..checks import check_choice
from ..registry import METRICS

IOU_METRICS = ('mIoU', 'mDice', 'mFscore')


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """mmseg's IoUMetric that also returns the IoU of every class, in percent, as ``IoU/<class name>``.

    Takes the arguments of IoUMetric; a class without a pixel in labels and predictions is NaN.

    Raises:
        TypeError: An argument that IoUMetric does not have and would ignore.
        ValueError: An unknown metric.

    Example::

        test_evaluator = dict(type='ClassIoUMetric', iou_metrics=['mIoU'])
    """

    def __init__(
        self, ignore_index: int = 255, iou_metrics: Union[str, Sequence[str]] = ('mIoU',), **kwargs: Any
    ) -> None:
        for name in kwargs:
            if name not in signature(IoUMetric.__init__).parameters:
                raise TypeError(f"{type(self).__name__}.__init__() got an unexpected keyword argument '{name}'")
        iou_metrics = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        for name in iou_metrics:
            check_choice('iou_metrics', name, IOU_METRICS)
        super().__init__(ignore_index, iou_metrics, **kwargs)

    def compute_metrics(self, results: list) -> Dict[str, float]:
        metrics = super().compute_metrics(results)
        if not self.format_only:
            intersect, union = (sum(areas) for areas in list(zip(*results))[:2])
            iou = 100 * intersect / union
            metrics.update({f'IoU/{name}': value.item() for name, value in zip(self.dataset_meta['classes'], iou)})
        return metrics
