import math

import pytest
import torch

pytest.importorskip('mmseg.evaluation')

from mmengine.registry import DefaultScope  # noqa: E402

from sar_mm.registry import METRICS  # noqa: E402

LABEL = [[0, 0, 1, 1], [2, 2, 2, 255]]
PREDICTION = [[0, 1, 1, 1], [2, 2, 0, 0]]


def evaluate(classes, *batches):
    with DefaultScope.overwrite_default_scope('mmseg'):
        metric = METRICS.build(dict(type='ClassIoUMetric', iou_metrics=['mIoU']))
    metric.dataset_meta = dict(classes=classes)
    for label, prediction in batches:
        sample = dict(gt_sem_seg=dict(data=torch.tensor([label])), pred_sem_seg=dict(data=torch.tensor([prediction])))
        metric.process({}, [sample])
    return metric.evaluate(size=len(batches))


@pytest.mark.parametrize('splits', [1, 2])
def test_class_iou_metric__hand_made_example(splits):
    # Intersections 1, 2, 2 and unions 3, 3, 3, of one image or of its two rows.
    rows = [(LABEL, PREDICTION)] if splits == 1 else [([a], [b]) for a, b in zip(LABEL, PREDICTION)]
    metrics = evaluate(('road', 'sky', 'dog'), *rows)
    per_class = {name: metrics[f'IoU/{name}'] for name in ('road', 'sky', 'dog')}
    assert per_class == pytest.approx(dict(road=100 / 3, sky=200 / 3, dog=200 / 3))
    assert metrics['mIoU'] == pytest.approx(500 / 9, abs=0.01)
    assert metrics['aAcc'] == pytest.approx(500 / 7, abs=0.01)


def test_class_iou_metric__absent_class_is_nan():
    metrics = evaluate(('road', 'sky', 'dog', 'cat'), (LABEL, PREDICTION))
    assert math.isnan(metrics['IoU/cat'])
    assert metrics['IoU/road'] == pytest.approx(100 / 3)
    assert metrics['mIoU'] == pytest.approx(500 / 9, abs=0.01)
