import math
import re
from pathlib import Path

import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.models import SARLoss
from sar_mm.ops import anchor_costs
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
    losses = loss(
        loss.anchor_costs(logits), embedded, feature, torch.tensor(TARGET), anchors, torch.tensor(gate), ignore_index
    )
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
    assert (loss.anchor_weight, loss.pull_weight, loss.confidence_threshold) == (1.0, 0.1, 0.9)
    losses = compute(loss)[0]
    assert losses['loss_pull'].item() == pytest.approx(0.1 * PULL_LOSS)


def test_sar_loss__closed_gate_pulls_nothing():
    losses, _, feature, _ = compute(SARLoss(), gate=0.0)
    assert losses['loss_anchor'].item() == pytest.approx(ANCHOR_LOSS)
    assert losses['loss_pull'].item() == 0
    assert torch.equal(feature, torch.zeros(3, 2))


def test_sar_loss__passes_confidence_and_ignore_index_on():
    # At 0.3 only p = 1/4 is left; without class 1 only the first row is pulled.
    losses = compute(SARLoss(confidence_threshold=0.3), ignore_index=1)[0]
    assert losses['loss_anchor'].item() == pytest.approx(math.log(4))
    assert losses['loss_pull'].item() == pytest.approx(0.1 * 4 / 2)


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


def test_sar_loss__without_a_confidence_no_anchor_is_left_out():
    logits = torch.tensor([[9.0, 0.0], [0.0, 9.0]], requires_grad=True)
    feature, target, anchors = torch.tensor(FEATURE), torch.tensor(TARGET), torch.tensor(ANCHORS)
    arguments = (torch.tensor(EMBEDDED), feature, target, anchors, torch.tensor(1.0))
    assert SARLoss()(anchor_costs(logits), *arguments)['loss_anchor'].item() == 0
    loss = SARLoss(confidence_threshold=None)(anchor_costs(logits), *arguments)['loss_anchor']
    assert loss.item() == pytest.approx(math.log1p(math.exp(-9)), rel=1e-3)
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad[0, 0] < 0 < grad[0, 1]


@pytest.mark.parametrize('class_balanced', [False, True])
@pytest.mark.parametrize('shape', [(6, 3), (2, 3, 2, 2)])
def test_sar_loss__cosine_distance_is_one_minus_the_cosine(shape, class_balanced):
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.randint(2, (shape[0], *shape[2:]), generator=generator)
    target.flatten()[0] = 255
    anchors, logits = torch.randn(2, 3, generator=generator, dtype=torch.float64), torch.tensor(LOGITS)
    loss = SARLoss(pull_weight=0.5, distance='cosine', class_balanced=class_balanced)
    pull = loss(anchor_costs(logits), torch.ones(2, 3), feature, target, anchors, torch.tensor(1.0), 255)['loss_pull']
    by_class = {}
    for row, label in zip(feature.movedim(1, -1).reshape(-1, 3), target.flatten().tolist()):
        if label < 2:
            cosine = row @ anchors[label] / row.norm() / anchors[label].norm()
            by_class.setdefault(label, []).append(1 - cosine)
    costs = [sum(each) / len(each) for each in by_class.values()] if class_balanced else sum(by_class.values(), [])
    expected = 0.5 * sum(costs) / len(costs)
    assert pull.item() == pytest.approx(expected.item(), rel=1e-6)
    grads = [torch.autograd.grad(value, feature, retain_graph=True)[0] for value in (pull, expected)]
    assert torch.allclose(*grads, atol=1e-6)


def test_sar_loss__a_subclass_with_a_formula_of_its_own():
    class City(SARLoss):
        def pull(self, feature, target, semantic_anchors, ignore_index, gate, weight):
            return (feature - semantic_anchors[target]).abs().mean()

    feature = torch.tensor(FEATURE[:2])
    arguments = (torch.tensor(LOGITS), torch.tensor(EMBEDDED), feature, torch.tensor([0, 1]), torch.tensor(ANCHORS))
    assert City()(*arguments, torch.tensor(1.0))['loss_pull'].item() == pytest.approx(0.1 * 9 / 4)


def test_sar_loss__the_subclass_of_the_docs_has_all_options():
    """Ignored labels, weights, gates per class and class balance hold for another distance without its doing."""
    page = (Path(__file__).parents[3] / 'docs' / 'add_distance.md').read_text(encoding='utf-8')
    (code,) = [block for block in re.findall(r'```python\n(.*?)```', page, re.S) if 'class HellingerLoss' in block]
    assert len(code.split('def pull')[1].strip().splitlines()) <= 3
    exec(code, dict(__name__='docs'))
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(7, 3, generator=generator).requires_grad_()
    anchors, weight = torch.randn(3, 3, generator=generator), torch.rand(7, generator=generator)
    target, gate = torch.tensor([0, 1, 2, 2, 1, 255, 0]), torch.tensor([1.0, 0.0, 1.0])
    sums, weights = torch.zeros(3), torch.zeros(3)
    for row, label, each in zip(feature, target, weight):
        if label < 3:
            difference = row.softmax(0).sqrt() - anchors[label].softmax(0).sqrt()
            sums[label] = sums[label] + gate[label] * each * difference.square().mean()
            weights[label] += each
    for class_balanced, expected in ((True, (sums / weights).mean()), (False, sums.sum() / weights.sum())):
        loss = MODELS.build(dict(type='HellingerLoss', pull_weight=10.0, class_balanced=class_balanced))
        pull = loss(torch.zeros(3), anchors, feature, target, anchors, gate, 255, weight)['loss_pull']
        torch.testing.assert_close(pull, 10 * expected)
        grads = [torch.autograd.grad(each, feature, retain_graph=True)[0] for each in (pull, 10 * expected)]
        torch.testing.assert_close(*grads)


def test_logit_adjusted_sar_loss__adds_the_log_of_the_shares():
    counts, tau, logits = [90, 10], 0.5, torch.tensor(LOGITS)
    loss = MODELS.build(dict(type='LogitAdjustedSARLoss', tau=tau))
    with pytest.raises(ValueError, match='LogitAdjustedSARLoss has no class counts: add dict'):
        loss.anchor_costs(logits)
    loss.set_class_counts(counts)
    adjusted = SARLoss().anchor_costs(logits + tau * torch.tensor([0.9, 0.1]).log())
    assert torch.equal(loss.anchor_costs(logits), adjusted)
    assert torch.equal(loss.anchor_costs(logits[1:], first=1), adjusted[1:])
    own = MODELS.build(dict(type='LogitAdjustedSARLoss', tau=tau, class_counts=counts))
    own.set_class_counts([1, 1])
    assert torch.equal(own.anchor_costs(logits), adjusted)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(distance='l1'), "`distance` to be one of \\('euclidean', 'cosine'\\), but got 'l1'"),
        *((dict(anchor_weight=value), f'`anchor_weight`.*but got {value!r}') for value in (-0.1, '1', None)),
        *((dict(pull_weight=value), f'`pull_weight`.*but got {value!r}') for value in (float('inf'), float('nan'))),
        *(
            (dict(confidence_threshold=value), f'`confidence_threshold`.*but got {value!r}')
            for value in (0, 1, 1.5, float('nan'), '0.9')
        ),
        *((dict(separation_margin=value), r'`separation_margin`.* \[-1, 1\]') for value in (-1.1, 1.5, float('nan'))),
        (dict(type='LogitAdjustedSARLoss', tau=-1), '`tau` to be a finite number of at least 0, but got -1'),
    ],
)
def test_sar_loss__bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build({'type': 'SARLoss', **options})
