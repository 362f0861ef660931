"""What the losses that know the class counts share, and each against its formula."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope

from sar_mm.models.losses import ClassBalancedLoss, LDAMLoss, LogitAdjustedLoss
from sar_mm.ops import effective_number_weights
from sar_mm.registry import MODELS

COUNTS = [500, 60, 7, 1]
KINDS = dict(LogitAdjustedLoss=dict(), LDAMLoss=dict(), ClassBalancedLoss=dict())
K = len(COUNTS)


def make(name, **options):
    return MODELS.build(dict(KINDS[name], type=name, **options))


def draw(shape=(9,), ignored=False):
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(shape[0], K, *shape[1:], generator=generator, requires_grad=True)
    target = torch.randint(K, shape, generator=generator)
    if ignored:
        target[torch.rand(shape, generator=generator) < 0.3] = 255
    return score, target


def by_loops(name, score, target, counts):
    """The loss of every row with Python numbers; rows (N, K) and labels. Weights average 1 over those that count."""
    total, weights = [], []
    prior = [count / sum(counts) for count in counts]
    effective = [(1 - 0.9999) / (1 - 0.9999**count) for count in counts]
    for row, label in zip(score.tolist(), target.tolist()):
        if label == 255:
            total.append(0.0)
            continue
        weight = 1.0
        if name == 'LogitAdjustedLoss':
            row = [value + math.log(prior[k]) for k, value in enumerate(row)]
        if name == 'LDAMLoss':
            row[label] -= 30 * 0.5 * (min(counts) / counts[label]) ** 0.25
        if name == 'ClassBalancedLoss':
            weight = K * effective[label] / sum(effective)
        highest = max(row)
        log_sum = highest + math.log(sum(math.exp(value - highest) for value in row))
        total.append(weight * (log_sum - row[label]))
        weights.append(weight)
    return [value * len(weights) / sum(weights) for value in total]


@pytest.mark.parametrize('ignored', [False, True])
@pytest.mark.parametrize('shape', [(9,), (2, 3, 4)])
@pytest.mark.parametrize('name', KINDS)
def test_losses__equal_their_formulas(name, shape, ignored):
    score, target = draw(shape, ignored)
    rows = score.movedim(1, -1).reshape(-1, K)
    expected = by_loops(name, rows, target.flatten(), COUNTS)
    loss = make(name, class_counts=COUNTS)(score, target, ignore_index=255)
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    loss.backward()
    assert score.grad.isfinite().all() and score.grad.abs().sum() > 0


@pytest.mark.parametrize('name', ['LogitAdjustedLoss', 'ClassBalancedLoss'])
@pytest.mark.parametrize('shape', [(9,), (2, 3, 4)])
def test_losses__balanced_counts_give_cross_entropy(name, shape):
    score, target = draw(shape)
    loss = make(name, class_counts=[25] * K)(score, target)
    torch.testing.assert_close(loss, F.cross_entropy(score, target))


def test_ldam__balanced_counts_and_no_margin_give_cross_entropy():
    score, target = draw()
    torch.testing.assert_close(
        LDAMLoss(max_margin=0.0, class_counts=COUNTS)(score, target), F.cross_entropy(score, target)
    )
    # Equal counts mean the largest margin for all.
    shifted = score - 15.0 * F.one_hot(target, K)
    torch.testing.assert_close(LDAMLoss(class_counts=[8] * K)(score, target), F.cross_entropy(shifted, target))


def test_logit_adjusted__tau():
    score, target = draw()
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    for tau in (0, 0.5, 2.0):
        expected = F.cross_entropy(score + tau * prior.log(), target)
        torch.testing.assert_close(LogitAdjustedLoss(tau=tau, class_counts=COUNTS)(score, target), expected)


@pytest.mark.parametrize('name', KINDS)
def test_losses__one_hot_probabilities_equal_labels(name):
    score, target = draw()
    loss = make(name, class_counts=COUNTS)
    torch.testing.assert_close(loss(score, F.one_hot(target, K).float()), loss(score, target))


@pytest.mark.parametrize('name', ['LogitAdjustedLoss', 'LDAMLoss'])
def test_losses__weights_and_divisor(name):
    score, target = draw()
    loss = make(name, class_counts=COUNTS)
    weight = torch.linspace(0, 2, 9)
    each = torch.stack([loss(score[i : i + 1], target[i : i + 1]) for i in range(9)])
    torch.testing.assert_close(loss(score, target, weight=weight), (each * weight).mean())
    torch.testing.assert_close(loss(score, target, avg_factor=4), each.sum() / 4)
    torch.testing.assert_close(make(name, class_counts=COUNTS, loss_weight=0.5)(score, target), each.mean() / 2)
    loss.class_weight = [1.0, 2.0, 3.0, 0.5]  # as deferred re-weighting does
    of_target = torch.tensor([1.0, 2.0, 3.0, 0.5])[target]
    expected = (each * of_target).sum() / of_target.sum()
    torch.testing.assert_close(loss(score, target), expected)
    torch.testing.assert_close(loss(score, F.one_hot(target, K).float()), expected)
    torch.testing.assert_close(loss(score, target, avg_factor=3), expected * 9 / 3)


def test_ldam__with_deferred_weights_is_the_published_loss():
    """F.cross_entropy(s * (cosine - margin), target, weight) of Cao et al., a mean over the weights of the targets."""
    cosine, target = draw()
    cosine = cosine.tanh()
    weight = effective_number_weights(torch.tensor(COUNTS), 0.9999)
    margins = 0.5 * (torch.tensor(COUNTS).float() / min(COUNTS)) ** -0.25
    expected = F.cross_entropy(30 * (cosine - F.one_hot(target, K) * margins[target][:, None]), target, weight)
    loss = LDAMLoss(class_counts=COUNTS, class_weight=weight)
    torch.testing.assert_close(loss(30 * cosine, target, avg_factor=len(target)), expected)


@pytest.mark.parametrize('name', KINDS)
def test_losses__nothing_counts(name):
    score, target = draw((2, 3, 4))
    loss = make(name, class_counts=COUNTS, class_weight=[1.0, 2.0, 3.0, 4.0])
    value = loss(score, torch.full_like(target, 255), ignore_index=255)
    value.backward()
    assert value == 0 and not score.grad.any()


@pytest.mark.parametrize('name', KINDS)
def test_losses__reductions(name):
    score, target = draw((2, 3, 4), ignored=True)
    loss = make(name, class_counts=COUNTS, class_weight=[1.0, 2.0, 3.0, 0.5], loss_weight=0.5)
    mean, total, each = (
        loss(score, target, ignore_index=255, reduction_override=kind) for kind in ('mean', 'sum', 'none')
    )
    assert each.shape == target.shape and not each[target == 255].any()
    torch.testing.assert_close(each.mean(), mean)
    torch.testing.assert_close(each.sum(), total)
    assert torch.equal(loss(score, target, ignore_index=255), mean)
    with pytest.raises(ValueError, match='`reduction_override` to be one of'):
        loss(score, target, reduction_override='max')


@pytest.mark.parametrize('name', KINDS)
def test_losses__with_a_sampler_of_hard_pixels(name, make_seg_samples):
    pytest.importorskip('mmseg.models')
    options = dict(in_channels=4, channels=4, num_classes=K, num_convs=0, concat_input=False, dropout_ratio=0)
    sampler = dict(type='OHEMPixelSampler', min_kept=10)
    loss = dict(type=name, class_counts=COUNTS)
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = MODELS.build(dict(type='SARFCNHead', sampler=sampler, loss_decode=loss, **options))
    feature = torch.randn(2, 4, 64, 64, requires_grad=True)
    losses = head.loss((feature,), make_seg_samples(labels=(0, 1, 2, 3, 255)), None)
    losses['loss_ce'].backward()
    places = feature.grad.abs().sum(1) > 0
    assert losses['loss_ce'] > 0 and 10 <= places.sum() < 2 * 64 * 64 / 4


@pytest.mark.parametrize('name', KINDS)
def test_losses__counts_from_the_data(name):
    score, target = draw()
    loss = make(name)
    with pytest.raises(ValueError, match=f'{name} has no class counts: add .*ClassCountsHook'):
        loss(score, target)
    loss.set_class_counts(COUNTS)
    assert torch.equal(loss(score, target), make(name, class_counts=COUNTS)(score, target))
    own = make(name, class_counts=[1] * K)
    own.set_class_counts(COUNTS)
    assert own.class_counts == [1] * K
    assert loss.state_dict() == {}
    loss.set_class_counts(COUNTS + [3])
    with pytest.raises(ValueError, match='`class_counts` to be one count for each of the 4 classes, but got'):
        loss(score, target)


def test_losses__wrong_arguments():
    score, target = draw()
    for options, match in [
        (dict(tau=-1), 'tau'),
        (dict(loss_weight=-1), 'loss_weight'),
        (dict(loss_name='ce'), 'name'),
        (dict(class_counts=[0.9, 0.1]), 'class_counts'),
        (dict(class_weight=[-1, 1]), 'class_weight'),
    ]:
        with pytest.raises(ValueError, match=match):
            LogitAdjustedLoss(**options)
    with pytest.raises(ValueError, match='max_margin'):
        LDAMLoss(max_margin=-0.5)
    with pytest.raises(ValueError, match='beta'):
        ClassBalancedLoss(beta=1.0)
    with pytest.raises(ValueError, match='`class_weight` to be 4 weights'):
        LogitAdjustedLoss(class_counts=COUNTS, class_weight=[1, 2])(score, target)


def test_class_balanced__given_weights_are_multiplied_in():
    score, target = draw()
    loss = ClassBalancedLoss(beta=0.9, class_counts=COUNTS, class_weight=[1.0, 0.0, 2.0, 1.0])
    weight = effective_number_weights(torch.tensor(COUNTS), 0.9) * torch.tensor([1.0, 0.0, 2.0, 1.0])
    expected = F.cross_entropy(score, target, weight)
    torch.testing.assert_close(loss(score, target), expected)


def test_losses__in_the_toolboxes_heads(make_seg_samples):
    pytest.importorskip('mmseg.models')
    cls_heads = pytest.importorskip('mmpretrain.models.heads')
    from mmpretrain.structures import DataSample

    loss = dict(type='LogitAdjustedLoss', class_counts=COUNTS)
    head = cls_heads.LinearClsHead(num_classes=K, in_channels=6, loss=dict(loss, type='sar_mm.LogitAdjustedLoss'))
    feature, target = torch.randn(9, 6), draw()[1]
    losses = head.loss((feature,), [DataSample().set_gt_label(int(label)) for label in target])
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    torch.testing.assert_close(losses['loss'], F.cross_entropy(head.fc(feature) + prior.log(), target))
    options = dict(in_channels=4, channels=4, num_classes=K, num_convs=0, concat_input=False, dropout_ratio=0)
    head = MODELS.build(dict(type='SARFCNHead', loss_decode=dict(loss, loss_name='loss_la'), **options))
    feature = torch.randn(2, 4, 64, 64)
    losses = head.loss((feature,), make_seg_samples(labels=(0, 1, 2, 3, 255)), None)
    labels = torch.cat([sample.gt_sem_seg.data for sample in make_seg_samples(labels=(0, 1, 2, 3, 255))])
    logits = head.conv_seg(feature) + prior.log().view(1, -1, 1, 1)
    torch.testing.assert_close(
        losses['loss_la'], F.cross_entropy(logits, labels, ignore_index=255, reduction='none').mean()
    )


@pytest.mark.skipif(not hasattr(torch, 'compile') or sys.platform != 'linux', reason='needs torch.compile')
@pytest.mark.parametrize('name', KINDS)
def test_losses__compile_to_one_graph(name):
    score, target = draw()
    loss = make(name, class_counts=COUNTS, class_weight=[1.0, 2.0, 3.0, 4.0])
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend='eager', fullgraph=True)
    weight = torch.arange(9) % 3
    torch.testing.assert_close(compiled(score, target, weight=weight), loss(score, target, weight=weight))
    before = loss(score, target)
    loss.class_weight = [4.0, 3.0, 2.0, 1.0]  # as deferred re-weighting does
    torch.testing.assert_close(compiled(score, target), loss(score, target))
    assert loss(score, target) != before
    torch._dynamo.reset()
