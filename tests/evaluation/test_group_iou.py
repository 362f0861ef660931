import math

import pytest
import torch

pytest.importorskip('mmseg.evaluation')

from mmengine.registry import DefaultScope  # noqa: E402

from sar_mm.registry import METRICS  # noqa: E402

CLASSES = ('road', 'sky', 'dog', 'cat')
# Intersections 1, 2, 2, 0 and unions 3, 3, 3, 0: cat is in neither.
LABEL = [[0, 0, 1, 1], [2, 2, 2, 255]]
PREDICTION = [[0, 1, 1, 1], [2, 2, 0, 0]]


def build(**options):
    with DefaultScope.overwrite_default_scope('mmseg'):
        metric = METRICS.build(dict(type='GroupIoUMetric', **options))
    metric.dataset_meta = dict(classes=CLASSES)
    return metric


def evaluate(metric):
    label, prediction = torch.tensor([LABEL]), torch.tensor([PREDICTION])
    metric.process({}, [dict(gt_sem_seg=dict(data=label), pred_sem_seg=dict(data=prediction))])
    return metric.evaluate(1)


@pytest.mark.parametrize(
    'counts, expected',
    [
        ([50, 40, 5, 5], dict(common=500 / 9)),
        ([940, 50, 10, 0], dict(common=50, medium=200 / 3)),  # shares of 0.94, 0.05, 0.01
        ([9900, 99, 1, 0], dict(common=100 / 3, rare=200 / 3)),
        ([20, 2000, 1000000, 20000], dict(common=200 / 3, rare=50)),
    ],
)
def test_group_iou_metric__groups_by_the_share_of_pixels(counts, expected):
    metrics = evaluate(build(class_counts=counts))
    groups = {name.split('/')[1]: value for name, value in metrics.items() if name.startswith('mIoU/')}
    assert groups == pytest.approx(expected)
    assert metrics['mIoU'] == pytest.approx(500 / 9, abs=0.01)
    assert metrics['IoU/road'] == pytest.approx(100 / 3) and math.isnan(metrics['IoU/cat'])


def test_group_iou_metric__settable_shares_and_counts_of_the_hook():
    metric = build(common=0.5, rare=0.2, iou_metrics=['mIoU'])
    metric.set_class_counts([6, 3, 1, 0])
    metrics = evaluate(metric)
    groups = {name: metrics[name] for name in ('mIoU/common', 'mIoU/medium', 'mIoU/rare')}
    expected = {'mIoU/common': 100 / 3, 'mIoU/medium': 200 / 3, 'mIoU/rare': 200 / 3}
    assert groups == pytest.approx(expected)


def test_group_iou_metric__without_counts():
    with pytest.raises(ValueError, match='ClassCountsHook'):
        evaluate(build())


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(common=2), r'`common` to be a number in \[0, 1\], but got 2'),
        (dict(common=0.1, rare=0.2), '`rare` to be at most common = 0.1, but got 0.2'),
        (dict(class_counts=[0.9, 0.1]), '`class_counts` to be .*multiply shares'),
    ],
)
def test_group_iou_metric__wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_group_iou_metric__counts_of_other_classes():
    with pytest.raises(ValueError, match='one count for each of the 4 classes, but got'):
        evaluate(build(class_counts=[1, 2]))
