"""One training step of both kinds of models, by hand, and what holds for both."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from semi_steps import KINDS, train

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
