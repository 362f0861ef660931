"""One training step of both kinds of models, by hand, and what holds for both."""

import time
import warnings
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.runner.checkpoint import load_state_dict

KINDS = ['cls', 'seg']


def train(model, batches, lr=0.05):
    optim_wrapper = OptimWrapper(torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr))
    return [model.train_step(batch, optim_wrapper) for batch in batches]


def student_state(model):
    state = model.state_dict()
    return {name[len('student.') :]: value for name, value in state.items() if name.startswith('student.')}


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def plain_batch(items, kind):
    from mmengine.dataset import pseudo_collate

    return pseudo_collate([item.labeled for item in items if 'labeled' in item])


# ----- A step by hand


def test_loss__of_a_classifier_by_hand(make_semi, make_items):
    model = make_semi('cls', semi=dict(unsup_weight=0.7), num_classes=2)
    data = model.data_preprocessor(make_items('cls', 3, 8, views=2, num_classes=2), training=True)
    assert data['branches'] == dict(labeled=3, strong0=8, strong1=8, weak=8)
    inputs = data['inputs']
    logits = deepcopy(model.student)(inputs, mode='tensor')  # labeled, strong and weak in one batch, in training mode
    confidence, pseudo = logits[19:].detach().softmax(dim=1).max(dim=1)
    threshold = model.pseudo_labels.threshold.value = float(confidence.median()) - 1e-4
    mask = confidence >= threshold
    assert 0 < mask.sum() < 8
    labels = torch.cat([sample.gt_label for sample in data['data_samples'][:3]])
    supervised = F.cross_entropy(logits[:3], labels)
    each = F.cross_entropy(logits[3:19], torch.cat([pseudo, pseudo]), reduction='none')
    unsupervised = (each * torch.cat([mask, mask])).sum() / 16
    truth = torch.cat([sample.gt_label for sample in data['data_samples'][19:]])

    losses = model(**data, mode='loss')
    torch.testing.assert_close(losses['loss'], supervised)
    torch.testing.assert_close(losses['loss_unsup'], 0.7 * unsupervised)
    assert losses['pseudo_ratio'] == mask.float().mean()
    assert losses['pseudo_acc'] == (pseudo == truth)[mask].float().mean()
    assert losses['pseudo_threshold'] == pytest.approx(threshold)


def test_loss__of_a_segmentor_by_hand(make_semi, make_items):
    semi = dict(threshold=0.6, cutmix_prob=0.0)
    model = make_semi('seg', semi=semi, num_classes=2)
    data = model.data_preprocessor(make_items('seg', 2, 3, num_classes=2), training=True)
    inputs = data['inputs']
    reference = deepcopy(model.student)
    features = reference.extract_feat(inputs)  # labeled, strong and weak in one batch, in training mode
    logits = F.interpolate(reference.decode_head(features), (16, 16), mode='bilinear')
    confidence, pseudo = logits[5:].detach().softmax(dim=1).max(dim=1)
    mask = confidence >= 0.6
    assert 0 < mask.sum() < mask.numel()
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples'][:2]])
    supervised, unsupervised = [], []
    for head in (reference.decode_head, reference.auxiliary_head):
        logits = F.interpolate(head(features), (16, 16), mode='bilinear')
        supervised.append(F.cross_entropy(logits[:2], labels))
        unsupervised.append((F.cross_entropy(logits[2:5], pseudo, reduction='none') * mask).mean())

    losses = model(**data, mode='loss')
    torch.testing.assert_close(losses['decode.loss_ce'], supervised[0])
    torch.testing.assert_close(losses['aux.loss_ce'], supervised[1])
    torch.testing.assert_close(losses['loss_unsup'], sum(unsupervised))
    assert losses['pseudo_ratio'] == mask.float().mean()


@pytest.mark.parametrize('joint_forward', [True, False])
@pytest.mark.parametrize('kind', KINDS)
def test_loss__anchors_pull_by_pseudo_labels(kind, joint_forward, make_semi, make_items, open_gate, monkeypatch):
    """Once per step, labeled features and those of strong views together, the mask as their weights."""
    from sar_mm.models.anchor_head import SemanticAnchorHead
    from sar_mm.ops import pull_loss

    model = make_semi(kind, sar=True, semi=dict(joint_forward=joint_forward))
    head = model.student.head if kind == 'cls' else model.student.decode_head
    for each in [head] + ([model.student.auxiliary_head] if kind == 'seg' else []):
        open_gate(each)
    seen, forward = [], type(head.anchor_head.loss_module).forward

    def watch(self, feature, target, semantic_anchors, weight, **options):
        seen.append((feature, target, semantic_anchors, weight))
        return forward(
            self, feature=feature, target=target, semantic_anchors=semantic_anchors, weight=weight, **options
        )

    steps = []
    average = SemanticAnchorHead._average
    monkeypatch.setattr(SemanticAnchorHead, '_average', lambda *args: steps.append(1) or average(*args))
    monkeypatch.setattr(type(head.anchor_head.loss_module), 'forward', watch)
    data = model.data_preprocessor(make_items(kind, 3, 4, views=2), training=True)
    from sar_mm.models.semi.teacher import labeling

    images = data['inputs'] if joint_forward else torch.cat([data['inputs'][:3], data['inputs'][-4:]])
    with torch.no_grad(), labeling(model.student):
        probability = model.predict_probability(model.student, images)[-4:]
    model.pseudo_labels.threshold.value = float(probability.max(dim=1)[0].median()) - 1e-4
    losses = model(**data, mode='loss')
    assert len(steps) == len(seen) == (1 if kind == 'cls' else 2)
    prefix = '' if kind == 'cls' else 'decode.'
    assert losses[f'{prefix}anchor_gate'] == 1
    feature, target, anchors, weight = seen[0]
    assert len(feature) == 3 + 3 * 4
    # Weak views are in the batch, but pull nothing.
    strong, weak = (slice(3, 11), slice(11, 15)) if joint_forward else (slice(7, 15), slice(3, 7))
    if kind == 'cls':
        assert weight[:3].tolist() == [1, 1, 1] and not weight[weak].any()
        assert weight[strong][:4].tolist() == weight[strong][4:].tolist()
        assert weight[strong].mean() == losses['pseudo_ratio']
        valid = weight > 0
    else:
        valid = target != 255
        assert valid[:3].all() and not valid[weak].any() and valid[strong].any()
    assert 0 < losses['pseudo_ratio'] < 1
    distance = (feature.movedim(1, -1)[valid] - anchors[target[valid]]).square().sum()
    pull = 0.1 * distance / (feature.shape[1] * valid.sum())
    torch.testing.assert_close(losses[f'{prefix}loss_pull'], pull)
    torch.testing.assert_close(pull_loss(feature, target, anchors, 255, weight=weight) * 0.1, pull)
    # Anchors lead: the pull of pseudo-labels has a gradient for the features only.
    losses[f'{prefix}loss_pull'].backward()
    assert all(parameter.grad is None for parameter in head.anchor_head.parameters())
    assert any(parameter.grad is not None for parameter in model.student.backbone.parameters())


# ----- What gets gradients, and what not


@pytest.mark.parametrize('teacher', [None, dict(momentum=0.1)])
@pytest.mark.parametrize('kind', KINDS)
def test_loss__gradients_reach_the_whole_student_and_no_teacher(kind, teacher, make_semi, make_items):
    model = make_semi(kind, sar=True, semi=dict(threshold=0.0, teacher=teacher))
    log = model(**model.data_preprocessor(make_items(kind), training=True), mode='loss')
    sum(value for name, value in log.items() if 'loss' in name).backward()
    for name, parameter in model.named_parameters():
        if name.startswith('teacher.'):
            assert not parameter.requires_grad and parameter.grad is None
        else:
            assert parameter.grad is not None, name


def test_train__teacher_stays_in_evaluation_mode(make_semi, make_items):
    model = make_semi('cls', semi=dict(teacher=dict(momentum=0.1)))
    assert model.train() is model
    assert model.student.training and not any(module.training for module in model.teacher.modules())
    train(model, [make_items('cls')])
    assert model.student.training and model.student.backbone.training
    assert not any(module.training for module in model.teacher.modules())


def test_loss__a_student_that_teaches_itself_is_put_back_into_training_mode(make_semi, make_items):
    model = make_semi('cls', semi={})
    norm = model.student.backbone.stem[1].eval()
    train(model, [make_items('cls')])
    assert model.student.training and not norm.training
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize('kind', KINDS)
def test_loss__teacher_follows_the_student(kind, make_semi, make_items):
    model = make_semi(kind, semi=dict(teacher=dict(momentum=0.25, ramp_up=False)))
    students = []
    for step in range(3):
        students.append({k: v.detach().clone() for k, v in model.student.named_parameters()})
        train(model, [make_items(kind, step=step)])
    for name, value in model.teacher.module.named_parameters():
        expected = students[0][name]
        for student in students[1:]:
            expected = 0.75 * expected + 0.25 * student[name]
        torch.testing.assert_close(value, expected)


# ----- No unlabeled image counts: supervised training


@pytest.mark.parametrize('sar', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_no_pseudo_labels__equal_supervised_training_exactly(kind, sar, make_semi, make_items):
    plain = make_semi(kind, sar)
    semi = make_semi(kind, sar, semi=dict(joint_forward=False, teacher={}))
    semi.pseudo_labels.threshold.value = 2.0
    assert_same_state(student_state(semi), plain.state_dict())
    batches = [make_items(kind, step=step) for step in range(4)]
    logs = train(semi, deepcopy(batches))
    plain_logs = train(plain, [plain_batch(batch, kind) for batch in batches])
    assert_same_state(student_state(semi), plain.state_dict())  # running statistics, too
    for log, plain_log in zip(logs, plain_logs):
        assert log['loss_unsup'] == 0 and log['pseudo_ratio'] == 0
        assert {name: log[name] for name in plain_log} == plain_log


@pytest.mark.parametrize('kind', KINDS)
def test_joint_forward__differs_by_batch_normalisation_only(kind, make_semi, make_items):
    models = [make_semi(kind, semi=dict(threshold=0.4, joint_forward=joint)) for joint in (True, False)]
    for model in models:
        for module in model.student.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    torch.manual_seed(1)
    one = train(models[0], [make_items(kind)])[0]
    torch.manual_seed(1)
    other = train(models[1], [make_items(kind)])[0]
    assert one['loss_unsup'] > 0
    for name, value in other.items():
        if 'acc_seg' not in name:  # of all images in one forward pass
            torch.testing.assert_close(one[name], value)
    for name, value in models[1].state_dict().items():
        torch.testing.assert_close(models[0].state_dict()[name], value)


@pytest.fixture
def hub(monkeypatch):
    hub = MessageHub.get_instance(f'semi-{time.time_ns()}')
    monkeypatch.setattr(MessageHub, 'get_current_instance', lambda: hub)
    return hub


def test_warmup__raises_the_weight_linearly(make_semi, make_items, hub):
    model = make_semi('cls', semi=dict(threshold=0.0, warmup_iters=4))
    reference = make_semi('cls', semi=dict(threshold=0.0))
    for step in range(6):
        data = make_items('cls', step=step)
        reference.load_state_dict(model.state_dict())
        full = train(reference, [deepcopy(data)])[0]['loss_unsup']
        hub.update_info('iter', step)  # as RuntimeInfoHook does
        torch.testing.assert_close(train(model, [data])[0]['loss_unsup'], min(step / 4, 1) * full)


def test_warmup__starts_with_the_run_whatever_is_loaded(make_semi, make_items, hub):
    trained = make_semi('cls', semi=dict(threshold=0.0, warmup_iters=4))
    hub.update_info('iter', 100)
    assert train(trained, [make_items('cls')])[0]['loss_unsup'] > 0
    model = make_semi('cls', semi=dict(threshold=0.0, warmup_iters=4))
    model.load_state_dict({**trained.state_dict(), 'steps': torch.tensor(100)})  # 0.1.0 saved the steps
    hub.update_info('iter', 0)
    assert train(model, [make_items('cls')])[0]['loss_unsup'] == 0


def test_warmup__without_a_runner(make_semi, make_items, hub):
    with pytest.raises(RuntimeError, match='semi.warmup_iters counts the steps of a Runner'):
        train(make_semi('cls', semi=dict(warmup_iters=4)), [make_items('cls')])


# ----- What is loaded, and what predicts


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


# ----- Errors


@pytest.mark.parametrize(
    ('semi', 'message'),
    [
        (dict(thresholds=0.9), r"`semi.thresholds=0.9` .*'threshold'.* got 'thresholds'; did you mean threshold\?"),
        (dict(threshold=95), r'`semi.threshold` to be a number in \[0, 1\], but got 95'),
        (dict(sup_weight=-1), r'`semi.sup_weight` to be .* but got -1'),
        (dict(unsup_weight=-1), r'`semi.unsup_weight` to be .* but got -1'),
        (dict(warmup_iters=0.5), r'`semi.warmup_iters` to be .* but got 0.5'),
        (dict(joint_forward='no'), r"`semi.joint_forward` to be True or False, but got 'no'"),
        (dict(predict_on='teacher'), r"`semi.predict_on` to be one of \('student',\), but got 'teacher'"),
        (dict(teacher=dict(momentum=3)), r'`teacher.momentum` to be .* but got 3'),
        (dict(cutmix_prob=0.5), r"`semi.cutmix_prob=0.5` .* but got 'cutmix_prob'"),
    ],
)
def test_options__bad_ones(semi, message, make_semi):
    with pytest.raises(ValueError, match=message):
        make_semi('cls', semi=semi)


@pytest.mark.parametrize(
    ('semi', 'message'),
    [
        (dict(cutmix_prob=2), r'`semi.cutmix_prob` to be .* but got 2'),
        (dict(feature_dropout=1.0), r'`semi.feature_dropout` to be below 1, but got 1.0'),
    ],
)
def test_options__bad_ones_for_segmentation(semi, message, make_semi):
    with pytest.raises(ValueError, match=message):
        make_semi('seg', semi=semi)
