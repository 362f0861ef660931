import math

import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.ops import pairwise_cosine, separation, separation_loss


def cosines_by_loops(anchors):
    rows = anchors.double().tolist()
    found = []
    for i in range(len(rows)):
        for j in range(len(rows)):
            if i != j:
                norms = [math.sqrt(sum(a * a for a in rows[k])) for k in (i, j)]
                product = sum(a * b for a, b in zip(rows[i], rows[j]))
                found.append(product / (norms[0] * norms[1]) if norms[0] * norms[1] else 0.0)
    return max(found), sum(found) / len(found)


@pytest.mark.parametrize('num_classes', [2, 3, 19])
@pytest.mark.parametrize('zero', [[], [0], [0, 1]])
@pytest.mark.parametrize('offset', [0.0, 2.0, -2.0])
def test_pairwise_cosine__equals_loops(num_classes, zero, offset):
    anchors = offset + torch.randn(num_classes, 8, generator=torch.Generator().manual_seed(3))
    anchors[zero] = 0
    largest, mean = pairwise_cosine(anchors)
    expected = cosines_by_loops(anchors)
    assert largest.shape == mean.shape == ()
    assert largest.item() == pytest.approx(expected[0], abs=1e-6)
    assert mean.item() == pytest.approx(expected[1], abs=1e-6)


@pytest.mark.parametrize(
    ('anchors', 'largest', 'mean'),
    [
        ([[1.0, 0.0], [0.0, 5.0]], 0.0, 0.0),
        ([[1.0, 0.0], [-3.0, 0.0]], -1.0, -1.0),
        ([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], 1.0, 1 / 3),
        ([[3.0, 4.0], [4.0, 3.0], [0.0, 0.0]], 0.96, 0.32),
        ([[0.0, 0.0], [0.0, 0.0]], 0.0, 0.0),
    ],
)
def test_pairwise_cosine__equals_hand_computed(anchors, largest, mean):
    found = pairwise_cosine(torch.tensor(anchors))
    assert [value.item() for value in found] == pytest.approx([largest, mean], abs=1e-6)


@pytest.mark.parametrize('margin', [-0.5, 0.0, 0.3])
def test_separation_loss__equals_loops(margin):
    anchors = torch.randn(5, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    loss = separation_loss(anchors, margin)
    total = 0
    for i in range(5):
        for j in range(5):
            if i != j:
                cosine = (anchors[i] @ anchors[j]) / (anchors[i].norm() * anchors[j].norm())
                total = total + (cosine - margin).clamp(min=0) ** 2 / 20
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    expected = torch.autograd.grad(total, anchors)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, anchors)[0], expected, atol=1e-6, rtol=1e-4)
    assert expected.abs().sum() > 0


def test_separation_loss__nothing_within_the_margin():
    assert separation_loss(torch.eye(4), 0.0) == 0


@pytest.mark.parametrize('block', [1, 20, 57])
def test_blocks__give_the_same_values_and_gradients(block, monkeypatch):
    anchors = 0.5 + torch.randn(19, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    anchors.requires_grad_()
    whole = *pairwise_cosine(anchors.detach()), separation_loss(anchors, margin=0.1)
    (gradient,) = torch.autograd.grad(whole[-1], anchors)
    monkeypatch.setattr(separation, 'BLOCK', block)
    parts = *pairwise_cosine(anchors.detach()), separation_loss(anchors, margin=0.1)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts[-1], anchors)[0], gradient)
