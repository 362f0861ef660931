import pytest
import torch

from sar_mm.analysis import FeatureStatistics, geometry
from sar_mm.evaluation import FeatureGeometry
from sar_mm.registry import METRICS

K, C = 4, 6
CLASSES = ('a', 'b', 'c', 'd')


def build(**options):
    metric = METRICS.build(dict(type='FeatureGeometry', **options))
    metric.dataset_meta = dict(classes=CLASSES)
    return metric


def draw(count=25, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, C, generator=generator), torch.randint(K, (count,), generator=generator)


def feed(metric, feature, label, batch=4):
    for rows, labels in zip(feature.split(batch), label.split(batch)):
        metric.observe(rows)
        metric.process(None, [dict(gt_label=y[None]) for y in labels])


def prefixed(numbers, prefix='geometry'):
    return {f'{prefix}/{name}': value for name, value in numbers.items()}


def direct(feature, label, *reference):
    statistics = FeatureStatistics(K, feature.shape[1])
    statistics.update(feature, label)
    return geometry(statistics, *reference)


def test_feature_geometry__classification():
    feature, label = draw()
    weight, anchors = torch.randn(2, K, C, generator=torch.Generator().manual_seed(1))
    metric = build()
    for _ in range(2):  # the second run starts anew
        metric.set_reference(weight, anchors)
        feed(metric, feature, label)
        assert metric.evaluate(len(label)) == pytest.approx(prefixed(direct(feature, label, weight, anchors)))
    feed(metric, feature, label)
    metrics = metric.evaluate(len(label))
    assert 'geometry/anchor_distance' not in metrics and 'geometry/nc3_self_duality' not in metrics


def test_feature_geometry__segmentation_resizes_labels_to_the_feature():
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(3, C, 4, 5, generator=generator)
    small = torch.tensor([0, 1, 2, 3, 255])[torch.randint(5, (3, 4, 5), generator=generator)]
    big = small.repeat_interleave(8, 1).repeat_interleave(8, 2)
    metric = build(prefix='space')
    for index in (slice(0, 2), slice(2, 3)):
        metric.observe(feature[index])
        metric.process(None, [dict(gt_sem_seg=dict(data=labels[None])) for labels in big[index]])
    small[small == 255] = -1
    assert metric.evaluate(3) == pytest.approx(prefixed(direct(feature, small), 'space'))


def test_feature_geometry__segmentation_with_a_padded_image():
    # An image of 6x8, enlarged to 12x16 for the network, padded to 16x20; the feature map has a quarter of that.
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(1, C, 4, 5, generator=generator)
    small = torch.randint(K, (1, 3, 4), generator=generator)
    label = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    metric = build()
    metric.observe(feature)
    meta = dict(img_shape=(12, 16), ori_shape=(6, 8), img_padding_size=(0, 4, 0, 4))
    metric.process(None, [dict(gt_sem_seg=dict(data=label), **meta)])
    assert metric.evaluate(1) == pytest.approx(prefixed(direct(feature[:, :, :3, :4], small)))


def test_feature_geometry__another_ignored_label():
    feature, labels = torch.randn(1, C, 2, 2), torch.tensor([[[0, 1], [2, 2]]])
    metric = build(ignore_index=2)
    metric.observe(feature)
    metric.process(None, [dict(gt_sem_seg=dict(data=labels))])
    assert metric.evaluate(1)['geometry/classes_seen'] == 2


def test_feature_geometry__weight_with_several_rows_per_class_is_left_out():
    metric = build()
    metric.set_reference(torch.randn(2 * K, C), None)
    feed(metric, *draw())
    assert 'geometry/nc3_self_duality' not in metric.evaluate(25)


def test_feature_geometry__no_feature():
    with pytest.raises(RuntimeError, match=r"saw no feature: add dict\(type='FeatureTapHook'\) to custom_hooks"):
        build().process(None, [dict(gt_label=torch.tensor([0]))])
    with pytest.raises(RuntimeError, match='FeatureTapHook'):
        build().evaluate(10)


def test_feature_geometry__several_forward_passes_for_a_batch():
    metric = build()
    for _ in range(2):
        metric.observe(torch.zeros(1, C, 4, 4))
    message = r"1 images, but saw features of shape \(1, 6, 4, 4\), \(1, 6, 4, 4\).*mode='whole'.*no test-time augm"
    with pytest.raises(RuntimeError, match=message):
        metric.process(None, [dict(gt_sem_seg=dict(data=torch.zeros(1, 4, 4)))])


def test_feature_geometry__what_does_not_fit():
    metric = FeatureGeometry()
    with pytest.raises(ValueError, match="data set's `classes`"):
        feed(metric, *draw())
    metric = build()
    metric.observe(torch.zeros(1, C))
    with pytest.raises(ValueError, match='`gt_label` to be one label per sample'):
        metric.process(None, [dict(gt_label=torch.tensor([1, 2]))])
    metric.observe(torch.zeros(1, C, 3, 3))
    with pytest.raises(ValueError, match=r'`feature` to be \(N, C\) for the labels of images'):
        metric.process(None, [dict(gt_label=torch.tensor([1]))])
