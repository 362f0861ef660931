import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

import sar_mm  # noqa: F401
from sar_mm.evaluation import GroupAccuracy
from sar_mm.registry import METRICS

COUNTS = [500, 101, 100, 50, 20, 19, 0]  # two many-shot classes, three medium, two few-shot


def draw(count=400, classes=7, seed=0):
    generator = np.random.default_rng(seed)
    label = generator.integers(classes, size=count)
    is_right = generator.random(count) < 0.3 + 0.1 * label
    return label, np.where(is_right, label, generator.integers(classes, size=count))


def to_samples(label, prediction, scores=False):
    samples = []
    for y, p in zip(label, prediction):
        sample = dict(gt_label=torch.tensor([y]))
        if scores:
            sample.update(pred_score=torch.nn.functional.one_hot(torch.tensor(p), 7).float(), pred_label=None)
        else:
            sample.update(pred_label=torch.tensor([p]))
        samples.append(sample)
    return samples


def evaluate(samples, classes=None, batch=64, **options):
    metric = METRICS.build(dict(type='GroupAccuracy', **{'class_counts': COUNTS, **options}))
    if classes is not None:
        metric.dataset_meta = dict(classes=classes)
    for start in range(0, len(samples), batch):
        metric.process(None, samples[start : start + batch])
    return metric.evaluate(len(samples))


@pytest.mark.parametrize('scores', [False, True])
def test_group_accuracy__equals_scikit_learn(scores):
    label, prediction = draw()
    metrics = evaluate(to_samples(label, prediction, scores), classes=list('abcdefg'), per_class=True)
    recall = 100 * recall_score(label, prediction, average=None)
    expected = dict(
        accuracy=100 * accuracy_score(label, prediction),
        balanced_accuracy=100 * balanced_accuracy_score(label, prediction),
        many=recall[:2].mean(),
        medium=recall[2:5].mean(),
        few=recall[5:].mean(),
    )
    expected.update({f'accuracy/{name}': value for name, value in zip('abcdefg', recall)})
    assert metrics == pytest.approx(expected)


def test_group_accuracy__hand_made_example():
    label, prediction = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 0]
    metrics = evaluate(to_samples(label, prediction), class_counts=[200, 30, 3])
    expected = dict(accuracy=100 * 4 / 7, balanced_accuracy=100 * (0.75 + 0.5) / 3, many=75, medium=50, few=0)
    assert metrics == pytest.approx(expected)


def test_group_accuracy__thresholds():
    label, prediction = [0, 1, 2], [0, 1, 1]
    metrics = evaluate(to_samples(label, prediction), class_counts=[6, 5, 4], many=5, few=5)
    assert {name: metrics[name] for name in ('many', 'medium', 'few')} == dict(many=100, medium=100, few=0)


def test_group_accuracy__absent_classes_and_groups_are_left_out():
    metrics = evaluate(to_samples([0, 0, 3], [0, 1, 3]), class_counts=[200, 150, 30, 25], per_class=True)
    assert 'few' not in metrics
    assert metrics['many'] == 50 and metrics['medium'] == 100 and metrics['balanced_accuracy'] == 75
    assert math.isnan(metrics['accuracy/1']) and metrics['accuracy/3'] == 100


def test_group_accuracy__counts_come_from_the_hook():
    metric = GroupAccuracy()
    metric.set_class_counts([500, 3])
    metric.process(None, to_samples([0, 1], [0, 0]))
    metrics = metric.evaluate(2)
    assert metrics['many'] == 100 and metrics['few'] == 0


def test_group_accuracy__without_counts():
    metric = GroupAccuracy()
    metric.process(None, to_samples([0], [0]))
    with pytest.raises(
        ValueError, match=r"GroupAccuracy has no class counts: add dict\(type='ClassCountsHook'\) to custom_hooks"
    ):
        metric.evaluate(1)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(many=-1), '`many` to be an integer of at least 0, but got -1'),
        (dict(few=2.5), '`few` to be an integer of at least 0, but got 2.5'),
        (dict(many=10, few=20), '`many` to be at least few - 1 = 19, but got 10'),
        (dict(class_counts=[0.9, 0.1]), r'`class_counts` to be .*multiply shares .*, but got \[0.9, 0.1\]'),
    ],
)
def test_group_accuracy__wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        GroupAccuracy(**options)


def test_group_accuracy__counts_of_other_classes():
    with pytest.raises(ValueError, match='`class_counts` to be one count for each of the 3 classes, but got'):
        evaluate(to_samples([0], [0]), classes=['a', 'b', 'c'])
    with pytest.raises(ValueError, match=r'`gt_label` to be a class in \[0, 2\), but got 4'):
        evaluate(to_samples([4], [0]), class_counts=[2, 1])


def test_group_accuracy__several_labels_per_sample():
    with pytest.raises(ValueError, match=r'`gt_label` to be one label per sample.*got \[1, 2\]'):
        GroupAccuracy().process(None, [dict(gt_label=torch.tensor([1, 2]), pred_label=torch.tensor([1]))])
