import logging

import pytest
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from torch import nn

from sar_mm.checks import UsageError
from sar_mm.engine.class_numbers import check_preprocessor, check_topk

pytest.importorskip('mmpretrain.models')
from mmpretrain.evaluation import Accuracy, MultiTasksMetric, SingleLabelMetric  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402

TOP5 = dict(type='Accuracy', topk=(1, 5))
TASKS = dict(fruit=4, tree=6)


def classifier(head=None, is_semi=False, **preprocessor):
    """Return a classifier of 4 classes, or a semi-supervised model with it."""
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet_CIFAR', depth=18, num_stages=1, out_indices=(0,), strides=(1,), dilations=(1,)),
        neck=dict(type='GlobalAveragePooling'),
        head=head or dict(type='SARLinearClsHead', num_classes=4, in_channels=64),
        data_preprocessor=preprocessor,
    )
    if is_semi:
        cfg = dict(type='SemiClassifier', classifier=cfg)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg)


def multi_task():
    heads = {task: dict(type='LinearClsHead', num_classes=number) for task, number in TASKS.items()}
    return classifier(dict(type='MultiTaskHead', task_heads=heads, in_channels=64))


@pytest.mark.parametrize('is_semi', [False, True])
@pytest.mark.parametrize(
    'place, evaluators',
    [
        ('val_evaluator', dict(val_evaluator=Evaluator([Accuracy(topk=(1, 5))]))),
        ('val_evaluator.1', dict(val_evaluator=Evaluator([SingleLabelMetric(), Accuracy(topk=5)]))),
        ('test_evaluator', dict(val_evaluator=Evaluator([Accuracy()]), test_evaluator=TOP5)),
        ('test_evaluator.0', dict(test_evaluator=[dict(TOP5, type='mmpretrain.Accuracy'), dict(type='Accuracy')])),
        ('test_evaluator', dict(test_evaluator=dict(TOP5, type=Accuracy))),
    ],
)
def test_check_topk__of_more_classes_than_there_are(place, evaluators, is_semi):
    head = r'model\.classifier\.head' if is_semi else r'model\.head'
    message = rf'^{place}\.topk=.*no top-5 accuracy of 4 classes \({head}\.num_classes=4\): set topk=\(1,\)$'
    with pytest.raises(UsageError, match=message):
        check_topk(classifier(is_semi=is_semi), evaluators)


def test_check_topk__what_fits():
    four = dict(type='Accuracy', topk=(1, 4))
    own = type('Accuracy', (), dict(topk=(1, 5)))()  # another metric of this name
    other = [dict(type='mine.Accuracy', topk=(1, 5)), dict(type='RetrievalRecall', topk=5), own]
    check_topk(classifier(), dict(val_evaluator=Evaluator([Accuracy(topk=4)]), test_evaluator=[four, *other]))
    check_topk(classifier(), dict(val_evaluator=None))
    check_topk(classifier(dict(type='LinearClsHead', num_classes=4, in_channels=64, topk=(1, 5))), {})  # not computed
    check_topk(nn.Linear(2, 4), dict(val_evaluator=TOP5))  # nothing tells its number of classes


def test_check_topk__of_the_accuracy_in_training():
    head = dict(type='SARLinearClsHead', num_classes=4, in_channels=64, topk=(1, 5), cal_acc=True)
    with pytest.raises(UsageError, match=r'^model.head.topk=\(1, 5\): there is no top-5 accuracy of 4 classes'):
        check_topk(classifier(head), {})


def test_check_topk__of_several_tasks():
    message = r'^{}.task_metrics.fruit.topk=.* \(model.head.task_heads.fruit.num_classes=4\)'
    for wrong, fitting in (({'fruit': [TOP5]}, {'tree': [TOP5]}), ({'fruit': [TOP5], 'tree': [TOP5]}, {'fruit': []})):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            metric = MultiTasksMetric(task_metrics=wrong)
        with pytest.raises(UsageError, match=message.format('val_evaluator')):
            check_topk(multi_task(), dict(val_evaluator=Evaluator([metric])))
        config = dict(type='MultiTasksMetric', task_metrics=wrong)
        with pytest.raises(UsageError, match=message.format('test_evaluator')):
            check_topk(multi_task(), dict(test_evaluator=config))
        check_topk(multi_task(), dict(test_evaluator=dict(config, task_metrics=fitting)))


@pytest.mark.parametrize(
    'options', [dict(to_onehot=True), dict(batch_augments=dict(augments=[dict(type='Mixup', alpha=0.2)]))]
)
def test_check_preprocessor__of_one_hot_labels(options):
    with pytest.raises(UsageError, match=r'^data_preprocessor.num_classes=10, but model.head.num_classes=4: one-hot'):
        check_preprocessor(classifier(num_classes=10, **options))
    for number in (4, None):
        check_preprocessor(classifier(num_classes=number, **options))


def test_check_preprocessor__a_number_that_is_not_read(monkeypatch):
    said = []
    monkeypatch.setattr('sar_mm.engine.class_numbers.print_log', lambda *arguments: said.append(arguments))
    check_preprocessor(classifier(num_classes=10))
    ((message, _, level),) = said
    assert (
        message.startswith('data_preprocessor.num_classes=10, but model.head.num_classes=4')
        and level == logging.WARNING
    )
    check_preprocessor(classifier(num_classes=4))
    check_preprocessor(classifier())
    check_preprocessor(multi_task())
    assert len(said) == 1
    check_preprocessor(classifier(is_semi=True, num_classes=10))  # which has no one-hot labels
    assert said[1][0].startswith('data_preprocessor.num_classes=10, but model.classifier.head.num_classes=4')
