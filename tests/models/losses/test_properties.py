"""What holds of every loss whatever it is given: what has weight 0, or is ignored, changes nothing."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sar_mm.ops import effective_number_weights
from sar_mm.registry import MODELS

IGNORED = 255
SAR = ['LogitAdjustedSARLoss', 'SARLoss']
always = settings(derandomize=True, deadline=None, max_examples=60, database=None)
LOSSES = sorted(
    {
        kind.__name__
        for kind in MODELS.module_dict.values()
        if kind.__module__.startswith('sar_mm.models.losses') and issubclass(kind, torch.nn.Module)
    }
)


@st.composite
def batches(draw):
    """Scores of any shape with hard or soft targets, weights, of which some are 0, and what else a loss is given."""
    num_classes = draw(st.integers(2, 5))
    soft = draw(st.booleans())
    size = [] if soft else draw(st.sampled_from([[], [2, 3]]))
    places = (draw(st.integers(1, 6)), *size)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))

    def targets():
        if soft:
            return torch.rand(places[0], num_classes, generator=generator).softmax(dim=1)
        target = torch.randint(num_classes, places, generator=generator)
        return target.masked_fill(torch.rand(places, generator=generator) < 0.2, IGNORED)

    weight = draw(st.sampled_from([0.5, 1.0, 2.0])) * torch.rand(places, generator=generator).ceil()
    weight = weight * torch.rand(places, generator=generator)
    weight[torch.rand(places, generator=generator) < draw(st.sampled_from([0.3, 0.7, 1.0]))] = 0
    return SimpleNamespace(
        score=torch.randn(places[0], num_classes, *size, generator=generator),
        other_score=100 * torch.randn(places[0], num_classes, *size, generator=generator),
        target=targets(),
        other_target=targets(),
        weight=weight,
        class_counts=draw(st.lists(st.integers(1, 5000), min_size=num_classes, max_size=num_classes)),
        class_weight=draw(
            st.none() | st.lists(st.just(0.0) | st.floats(1e-3, 9), min_size=num_classes, max_size=num_classes)
        ),
        avg_factor=draw(st.sampled_from([None, 1.0, 7.0])),
        class_balanced=draw(st.booleans()),
        distance=draw(st.sampled_from(['euclidean', 'cosine'])),
    )


def value_and_gradient(name, batch, score, target, weight):
    score = score.clone().requires_grad_()
    if name in SAR:
        num_classes = score.shape[1]
        anchors = torch.randn(num_classes, num_classes, generator=torch.Generator().manual_seed(0))
        logits = 2 * anchors
        counts = {} if name == 'SARLoss' else dict(class_counts=batch.class_counts)
        options = dict(class_balanced=batch.class_balanced, distance=batch.distance)
        loss = MODELS.build(dict(type=name, **options, **counts))
        value = loss(loss.anchor_costs(logits), anchors, score, target, anchors, torch.ones(()), IGNORED, weight)[
            'loss_pull'
        ]
    else:
        loss = MODELS.build(dict(type=name, class_counts=batch.class_counts, class_weight=batch.class_weight))
        options = {} if target.is_floating_point() else dict(ignore_index=IGNORED)
        value = loss(score, target, weight=weight, avg_factor=batch.avg_factor, **options)
    value.backward()
    return value.detach(), score.grad


def test_losses__all_are_here():
    assert ['ClassBalancedLoss', 'LDAMLoss', 'LogitAdjustedLoss', *SAR] == LOSSES


@pytest.mark.parametrize('name', LOSSES)
@given(batch=batches())
@always
def test_losses__what_has_weight_0_changes_nothing(name, batch):
    off = batch.weight == 0
    value, gradient = value_and_gradient(name, batch, batch.score, batch.target, batch.weight)
    assert value.isfinite() and gradient.isfinite().all()
    assert not gradient.movedim(1, -1)[off].any()

    score = torch.where(off.unsqueeze(1), batch.other_score, batch.score)
    is_soft = batch.target.is_floating_point()
    target = torch.where(off.unsqueeze(1) if is_soft else off, batch.other_target, batch.target)
    found = value_and_gradient(name, batch, score, target, batch.weight)
    assert torch.equal(found[0], value) and torch.equal(found[1], gradient)
    if not is_soft:
        for label in (IGNORED, -1, 77):  # no class: what has weight 0 is not even looked at
            found = value_and_gradient(name, batch, score, target.masked_fill(off, label), batch.weight)
            assert torch.equal(found[0], value) and torch.equal(found[1], gradient)


@pytest.mark.parametrize('name', LOSSES)
@given(batch=batches().filter(lambda batch: not batch.target.is_floating_point()))
@always
def test_losses__what_is_ignored_changes_nothing(name, batch):
    off = batch.target == IGNORED
    value, gradient = value_and_gradient(name, batch, batch.score, batch.target, None)
    score = torch.where(off.unsqueeze(1), batch.other_score, batch.score)
    found = value_and_gradient(name, batch, score, batch.target, None)
    assert torch.equal(found[0], value) and torch.equal(found[1], gradient)
    assert not gradient.movedim(1, -1)[off].any()
    weight = torch.where(off, batch.weight, torch.ones_like(batch.weight))  # nor does its weight
    found = value_and_gradient(name, batch, batch.score, batch.target, weight)
    torch.testing.assert_close(found[0], value)
    torch.testing.assert_close(found[1], gradient)


@pytest.mark.parametrize('name', [name for name in LOSSES if name not in SAR])
@given(batch=batches())
@always
def test_losses__weigh_classes_by_the_weights_of_the_samples(name, batch):
    """sum(w c ce) / (N * sum(w c) / sum(w)), sample by sample; c is the class weight of the target."""
    found, _ = value_and_gradient(name, batch, batch.score, batch.target, batch.weight)
    num_classes = batch.score.shape[1]
    class_weight = torch.tensor(batch.class_weight or [1.0] * num_classes, dtype=torch.float64)
    if name == 'ClassBalancedLoss':
        class_weight = class_weight * effective_number_weights(torch.tensor(batch.class_counts).double(), 0.9999)
    plain = MODELS.build(dict(type=name, class_counts=batch.class_counts, **({'beta': 0} if 'Bal' in name else {})))
    rows = batch.score.movedim(1, -1).reshape(-1, num_classes)
    is_soft = batch.target.is_floating_point()
    targets = batch.target if is_soft else batch.target.flatten()
    total = weights = number = 0.0
    for row, target, weight in zip(rows, targets, batch.weight.flatten().tolist()):
        if not is_soft and target == IGNORED:
            continue
        shares = target.double() if is_soft else F.one_hot(target, num_classes).double()
        # A cross-entropy with class weights is the sum of the classes' parts.
        scores = plain.adjust(row[None], target[None], torch.tensor(batch.class_counts).float())[0].double()
        total += weight * -(shares * class_weight * scores.log_softmax(0)).sum().item()
        weights += weight * (shares * class_weight).sum().item()
        number += weight * shares.sum().item()
    expected = total * number / weights if weights > 0 else 0.0
    expected /= batch.avg_factor or len(rows)
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
