"""What holds of the other operators whatever they are given; hypothesis draws sizes and numbers."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sar_mm  # noqa: F401
from sar_mm.ops import (
    anchor_cross_entropy,
    anchor_scores,
    effective_number_weights,
    nearest_labels,
    pairwise_cosine,
    separation_loss,
)

always = settings(derandomize=True, deadline=None, max_examples=100, database=None)
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.0, 1e-30, 1e-12, 1e-3, 1.0, 1e3, 1e12, 1e18])

# ----- The anchors' cross-entropy


@st.composite
def logits(draw, scale=scales, minimum=1):
    num_classes = draw(st.integers(minimum, 12))
    generator = torch.Generator().manual_seed(draw(seeds))
    scores = torch.randn(num_classes, num_classes, generator=generator) * draw(scale)
    return scores + draw(st.sampled_from([0.0, 3.0, 10.0, 200.0])) * torch.eye(num_classes)


@always
@given(logits(scale=st.sampled_from([0.1, 1.0, 30.0])), st.sampled_from([0.5, 0.9, 0.99]))
def test_anchor_cross_entropy__equals_the_naive_formula(scores, confidence):
    cost = -scores.double().log_softmax(1).diagonal()
    assume(((-cost).exp() - confidence).abs().min() > 1e-5)
    cost = cost[(-cost).exp() <= confidence]
    expected = cost.square().sum() / cost.sum() if len(cost) else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(anchor_cross_entropy(scores, confidence).double(), expected, rtol=1e-4, atol=1e-6)


@always
@given(logits(scale=st.sampled_from([0.0, 1e-30, 1.0, 1e4, 1e19, 1e30])), st.sampled_from([0.5, 0.9, 0.99]))
def test_anchor_cross_entropy__is_finite_with_its_gradient_and_at_most_the_largest_cost(scores, confidence):
    loss = anchor_cross_entropy(scores.requires_grad_(), confidence)
    largest = -scores.log_softmax(1).diagonal().min()
    assert loss.isfinite() and 0 <= loss <= largest * (1 + 1e-5)
    assert torch.autograd.grad(loss, scores)[0].isfinite().all()
    right, probability = anchor_scores(scores.detach())
    assert probability.isfinite().all() and ((probability >= 0) & (probability <= 1)).all()
    assert (loss == 0) == bool((probability > confidence).all())


@always
@given(logits(scale=st.sampled_from([0.1, 1.0, 30.0])), seeds)
def test_anchor_cross_entropy__order_of_classes_and_shifts_do_not_matter(scores, seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(scores), generator=generator)
    assume((scores.softmax(1).diagonal() - 0.9).abs().min() > 1e-5)
    other = scores[order][:, order] + torch.randn(len(scores), 1, generator=generator)
    torch.testing.assert_close(anchor_cross_entropy(other), anchor_cross_entropy(scores), rtol=1e-3, atol=1e-5)
    assert torch.equal(anchor_scores(scores[order][:, order])[0], anchor_scores(scores)[0][order])


# ----- Separation


@st.composite
def anchor_rows(draw):
    generator = torch.Generator().manual_seed(draw(seeds))
    rows = torch.randn(draw(st.integers(2, 9)), draw(st.integers(1, 9)), generator=generator)
    return rows * (torch.rand(len(rows), 1, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0])))


@always
@given(anchor_rows(), st.floats(-1, 1))
def test_separation__has_the_bounds_of_cosines(rows, margin):
    largest, mean = pairwise_cosine(rows)
    assert -1 - 1e-5 <= mean <= largest + 1e-5 <= 1 + 2e-5
    loss = separation_loss(rows.requires_grad_(), margin)
    assert 0 <= loss <= (1 - margin) ** 2 + 1e-4
    assert torch.autograd.grad(loss, rows)[0].isfinite().all()


@always
@given(anchor_rows(), st.sampled_from([1e-3, 0.5, 1e3, 1e12]), seeds)
def test_separation__scale_order_and_rotation_do_not_matter(rows, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator)
    rotation, _ = torch.linalg.qr(torch.randn(rows.shape[1], rows.shape[1], generator=generator))
    other = (rows * scale)[order] @ rotation
    torch.testing.assert_close(pairwise_cosine(other), pairwise_cosine(rows), rtol=0, atol=1e-5)
    torch.testing.assert_close(separation_loss(other), separation_loss(rows), rtol=0, atol=1e-5)


# ----- Weights and labels


@always
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=20).filter(any), st.floats(0, 1, exclude_max=True))
def test_effective_number_weights__are_a_mean_of_one_and_fall_with_the_count(counts, beta):
    weights = effective_number_weights(torch.tensor(counts), beta)
    assert weights.isfinite().all() and (weights > 0).all()
    assert weights.sum().item() == pytest.approx(len(counts), rel=1e-5)
    ordered = weights[torch.tensor(counts).argsort()]
    assert (ordered[1:] <= ordered[:-1] * (1 + 1e-6)).all()


@always
@given(st.integers(0, 3), *[st.integers(1, 12)] * 4, seeds)
def test_nearest_labels__takes_each_label_from_its_place(number, height, width, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-300, 300, (number, height, width), generator=generator)
    found = nearest_labels(labels, (rows, columns))
    assert found.shape == (number, rows, columns) and found.dtype == labels.dtype
    for row in range(rows):
        for column in range(columns):
            place = row * height // rows, column * width // columns
            assert torch.equal(found[:, row, column], labels[(slice(None), *place)])
    assert torch.equal(nearest_labels(labels, (height, width)), labels)
