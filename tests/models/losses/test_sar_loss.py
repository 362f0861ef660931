import math

import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.models import SARLoss
from sar_mm.registry import MODELS

# Anchors: p = 1/2 and 1/4. Pull: (0 + 4 + 9 + 16) over two channels and two valid rows.
LOGITS = [[0.0, 0.0], [math.log(3), 0.0]]
FEATURE = [[1.0, 2.0], [0.0, 0.0], [5.0, 5.0]]
TARGET = [0, 1, 255]
ANCHORS = [[1.0, 0.0], [3.0, 4.0]]
EMBEDDED = [[1.0, 0.0], [3.0, 4.0]]  # at cosine 0.6
ANCHOR_LOSS = (math.log(2) ** 2 + math.log(4) ** 2) / (math.log(2) + math.log(4))
PULL_LOSS = 29 / 4


def compute(loss, gate=1.0, ignore_index=255):
    logits, feature, anchors = (torch.tensor(x, requires_grad=True) for x in (LOGITS, FEATURE, ANCHORS))
    embedded = torch.tensor(EMBEDDED)
    losses = loss(logits, embedded, feature, torch.tensor(TARGET), anchors, torch.tensor(gate), ignore_index)
    sum(losses.values()).backward()
    return losses, logits.grad, feature.grad, anchors.grad


@pytest.mark.parametrize(('anchor_weight', 'pull_weight'), [(1.0, 0.1), (0.0, 0.0), (2, 3), (0.25, 7.5)])
def test_sar_loss__weights_scale_the_components(anchor_weight, pull_weight):
    losses, logits, feature, anchors = compute(SARLoss(anchor_weight, pull_weight))
    assert sorted(losses) == ['loss_anchor', 'loss_pull']
    assert losses['loss_anchor'].item() == pytest.approx(anchor_weight * ANCHOR_LOSS, rel=1e-6)
    assert losses['loss_pull'].item() == pytest.approx(pull_weight * PULL_LOSS, rel=1e-6)
    # d(c) = softmax - one_hot, times (2 c - L) / sum c
    share = [(2 * cost - ANCHOR_LOSS) / math.log(8) for cost in (math.log(2), math.log(4))]
    expected = torch.tensor([[-share[0] / 2, share[0] / 2], [0.75 * share[1], -0.75 * share[1]]])
    assert torch.allclose(logits, anchor_weight * expected, atol=1e-6)
    expected = torch.tensor([[0.0, 2.0], [-3.0, -4.0], [0.0, 0.0]]) / 2
    assert torch.allclose(feature, pull_weight * expected, atol=1e-6)
    assert anchors is None


def test_sar_loss__defaults_are_those_of_the_paper():
    loss = MODELS.build(dict(type='SARLoss'))
    assert (loss.anchor_weight, loss.pull_weight, loss.confidence) == (1.0, 0.1, 0.9)
    losses = compute(loss)[0]
    assert losses['loss_pull'].item() == pytest.approx(0.1 * PULL_LOSS)


def test_sar_loss__closed_gate_pulls_nothing():
    losses, _, feature, _ = compute(SARLoss(), gate=0.0)
    assert losses['loss_anchor'].item() == pytest.approx(ANCHOR_LOSS)
    assert losses['loss_pull'].item() == 0
    assert torch.equal(feature, torch.zeros(3, 2))


def test_sar_loss__passes_confidence_and_ignore_index_on():
    # At 0.3 only p = 1/4 is left; without class 1 only the first row is pulled.
    losses = compute(SARLoss(confidence=0.3), ignore_index=1)[0]
    assert losses['loss_anchor'].item() == pytest.approx(math.log(4))
    assert losses['loss_pull'].item() == pytest.approx(0.1 * 4 / 2)


@pytest.mark.parametrize('name', ['anchor_weight', 'pull_weight'])
@pytest.mark.parametrize('value', [-0.1, float('inf'), float('nan'), '1', None])
def test_sar_loss__names_a_wrong_weight(name, value):
    with pytest.raises(ValueError, match=f'`{name}`.*but got {value!r}'):
        SARLoss(**{name: value})


@pytest.mark.parametrize('value', [0, 1, 1.5, -0.5, float('nan'), '0.9'])
def test_sar_loss__names_a_wrong_confidence(value):
    with pytest.raises(ValueError, match=f'`confidence`.*but got {value!r}'):
        SARLoss(confidence=value)


def test_sar_loss__gate_per_class():
    losses, _, feature, _ = compute(SARLoss(), gate=[0.0, 1.0])
    assert losses['loss_pull'].item() == pytest.approx(0.1 * 25 / 4)
    assert feature[0].tolist() == [0, 0] and feature[1].tolist() == pytest.approx([-0.15, -0.2])


def test_sar_loss__class_balanced_pull():
    # Means within the classes 4 / 2 and 25 / 2, and their mean.
    assert compute(SARLoss(class_balanced=True))[0]['loss_pull'].item() == pytest.approx(0.1 * (2 + 12.5) / 2)


@pytest.mark.parametrize(('weight', 'margin', 'expected'), [(2.0, 0.0, 2 * 0.36), (1.0, 0.5, 0.01), (1.0, 0.7, 0.0)])
def test_sar_loss__separation(weight, margin, expected):
    losses = compute(SARLoss(separation_weight=weight, separation_margin=margin))[0]
    assert losses['loss_separation'].item() == pytest.approx(expected, abs=1e-6)
    assert 'loss_separation' not in compute(SARLoss(separation_margin=margin))[0]


@pytest.mark.parametrize('margin', [-1.1, 1.5, float('nan'), '0'])
def test_sar_loss__wrong_margin(margin):
    with pytest.raises(ValueError, match=r'`separation_margin` to be a number in \[-1, 1\]'):
        SARLoss(separation_weight=1.0, separation_margin=margin)
