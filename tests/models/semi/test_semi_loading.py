"""Semi-supervised models: what they load from checkpoints, and which part of them predicts."""

import warnings

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from semi_steps import KINDS, assert_same_state, student_state, train


@pytest.mark.parametrize('teacher', [None, {}])
def test_load__takes_the_weights_of_a_plain_model(teacher, make_semi):
    plain = make_semi('cls')
    with torch.no_grad():
        plain.head.fc.weight.fill_(0.5)
    semi = make_semi('cls', semi=dict(teacher=teacher))
    missing, unexpected = semi.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert set(missing) <= {'teacher.steps'}
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(semi.eval()(images), plain.eval()(images))


@pytest.mark.parametrize('kind', KINDS)
def test_load__a_copy_goes_on_alike(kind, make_semi, make_items):
    semi = dict(threshold=dict(type='SelfAdaptiveThreshold', momentum=0.5), teacher=dict(momentum=0.2))
    semi.update(distribution_alignment=dict(target='labeled'))
    model, other = make_semi(kind, True, semi), make_semi(kind, True, semi)
    train(model, [make_items(kind, step=step) for step in range(3)])
    other.load_state_dict(model.state_dict())
    logs = []
    for each in (model, other):
        torch.manual_seed(5)
        logs.append(train(each, [make_items(kind, step=step) for step in range(3, 6)]))
    assert logs[0] == logs[1]
    assert_same_state(model.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ('kind', 'sar', 'is_plain'),  # all pairs
    [('cls', True, False), ('seg', True, True), ('cls', False, True), ('seg', False, False)],
)
def test_load__of_another_number_of_classes(kind, sar, is_plain, make_semi, make_items):
    """A teacher's classifier starts as the student's, and what was averaged of other classes starts anew."""
    semi = dict(threshold=dict(type='SelfAdaptiveThreshold', momentum=0.5), teacher=dict(momentum=0.2))
    semi.update(distribution_alignment=dict(target='labeled'))
    trained = make_semi(kind, sar, semi, num_classes=4)
    train(trained, [make_items(kind, num_classes=4, step=step) for step in range(3)])
    model = make_semi(kind, sar, semi, num_classes=2)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # anchors say that they are others
        load_state_dict(model, student_state(trained) if is_plain else trained.state_dict(), strict=False)
    state = model.state_dict()
    for name, value in model.student.state_dict().items():
        if value.shape != trained.student.state_dict()[name].shape:
            assert torch.equal(state[f'teacher.module.{name}'], value), name
            assert torch.equal(value, fresh[f'student.{name}']), name
    for name in [name for name in state if name.startswith('pseudo_labels.')]:
        assert torch.equal(state[name], fresh[name]), name
    assert state['teacher.steps'] == 0  # or its classifier, averaged from its first weights on, would lag behind
    train(model, [make_items(kind, num_classes=2)])


@pytest.mark.parametrize('kind', KINDS)
def test_load__teachers_of_a_0_1_0_checkpoint_keep_their_steps(kind, make_semi, make_items):
    """There, ``initialized`` was one flag for all classes."""
    model, other = (make_semi(kind, True, dict(teacher=dict(momentum=0.2))) for _ in range(2))
    train(model, [make_items(kind, step=step) for step in range(3)])
    state = {
        name: value.new_ones(()) if name.endswith('.initialized') else value
        for name, value in model.state_dict().items()
    }
    other.load_state_dict(state)
    assert other.teacher.steps == 3
    for name, value in other.teacher.module.state_dict().items():
        wanted = torch.ones_like(value) if name.endswith('.initialized') else state[f'teacher.module.{name}']
        assert torch.equal(value, wanted), name


@pytest.mark.parametrize('kind', KINDS)
def test_predict_on__student_or_teacher(kind, make_semi, make_items):
    model = make_semi(kind, semi=dict(teacher=dict(momentum=0.1)))
    assert model.predict_on == 'teacher'
    train(model, [make_items(kind, step=step) for step in range(2)], lr=1.0)
    model.eval()
    images = torch.randn(2, 3, 16, 16)
    outputs = {}
    for part, wanted in (('student', model.student), ('teacher', model.teacher.module)):
        model.predict_on = part
        outputs[part] = model(images, mode='tensor')
        assert torch.equal(outputs[part], wanted(images, mode='tensor'))
    assert not torch.equal(outputs['student'], outputs['teacher'])


def test_teacher__any_averaged_model_of_mmengine(make_semi, make_items):
    model = make_semi('cls', semi=dict(teacher=dict(type='ExponentialMovingAverage', momentum=0.1)))
    train(model, [make_items('cls', step=step) for step in range(2)])
    assert type(model.teacher).__name__ == 'ExponentialMovingAverage' and model.teacher.steps == 2


def test_predict_on__a_student_without_teacher(make_semi):
    assert make_semi('cls', semi={}).predict_on == 'student'


def test_feature_tap__shows_the_features_of_the_part_that_predicts(make_semi):
    from sar_mm.engine.hooks import FeatureTapHook

    class Metric:
        def set_reference(self, weight, anchors):
            self.weight = weight

        def observe(self, feature):
            self.feature = feature

    model, hook, metric = make_semi('cls', sar=True, semi=dict(teacher={})).eval(), FeatureTapHook(), Metric()
    with torch.no_grad():
        model.teacher.module.head.fc.weight.zero_()
    hook._attach(model, [metric])
    model(torch.randn(2, 3, 16, 16))
    assert metric.feature.shape == (2, 16) and not metric.weight.any()
