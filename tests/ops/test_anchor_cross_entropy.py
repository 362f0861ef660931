import math

import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.ops import anchor_cross_entropy, anchor_scores


def costs_by_loops(logits):
    """Cross-entropy of every row for its own class; numbers or scalar tensors alike."""
    costs = []
    for k, row in enumerate(logits):
        peak = max(float(value) for value in row)
        total = 0.0
        for value in row:
            total = total + ((value - peak).exp() if torch.is_tensor(value) else math.exp(value - peak))
        log = total.log() if torch.is_tensor(total) else math.log(total)
        costs.append(log + peak - row[k])
    return costs


def loss_by_loops(logits, confidence=0.9):
    costs = costs_by_loops(logits)
    top, bottom = 0 * costs[0], 0 * costs[0]
    for cost in costs:
        if math.exp(-float(cost)) <= confidence:
            top = top + cost * cost
            bottom = bottom + cost
    return top / bottom if float(bottom) > 0 else top


@pytest.mark.parametrize('num_classes', [2, 3, 7, 19])
@pytest.mark.parametrize('scale', [0.1, 1.0, 5.0])
@pytest.mark.parametrize('confidence', [0.3, 0.9])
def test_anchor_cross_entropy__equals_loops(num_classes, scale, confidence):
    generator = torch.Generator().manual_seed(num_classes)
    logits = scale * torch.randn(num_classes, num_classes, generator=generator)
    logits[0, 0] -= 2 * scale
    scalars = [[torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in row] for row in logits.tolist()]
    expected = loss_by_loops(scalars, confidence)
    expected.backward()
    gradient = [[0.0 if v.grad is None else v.grad.item() for v in row] for row in scalars]

    logits.requires_grad_()
    loss = anchor_cross_entropy(logits, confidence)
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(logits.grad.double(), torch.tensor(gradient, dtype=torch.float64), atol=2e-6)


def test_anchor_cross_entropy__passes_gradcheck():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[1, 1] += 9  # left out; the others stay far from the threshold
    probability = logits.softmax(dim=1).diagonal()
    assert ((probability - 0.9).abs() > 0.02).all() and (probability > 0.9).sum() == 1
    assert torch.autograd.gradcheck(anchor_cross_entropy, (logits.requires_grad_(),))


LOG2, LOG3, LOG4, LOG5 = (math.log(n) for n in (2, 3, 4, 5))


@pytest.mark.parametrize(
    ('logits', 'expected'),
    [
        # p = 1/2, 1/2
        ([[0.0, 0.0], [0.0, 0.0]], LOG2),
        # p = 1/4, 1/2
        ([[0.0, LOG3], [0.0, 0.0]], (LOG4**2 + LOG2**2) / (LOG4 + LOG2)),
        # p = 1/2, and 19/20 which is left out
        ([[1.0, 1.0], [0.0, math.log(19)]], LOG2),
        # p = 1/3, 1/3, 1/3
        ([[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [-1.0, -1.0, -1.0]], LOG3),
        # p = 1/2, 1/4, 1/5
        (
            [[LOG2, 0.0, 0.0], [LOG2, 0.0, 0.0], [LOG3, 0.0, 0.0]],
            (LOG2**2 + LOG4**2 + LOG5**2) / (LOG2 + LOG4 + LOG5),
        ),
        # p = 1/5, and 98/100 twice
        ([[0.0, LOG3, 0.0], [0.0, math.log(98), 0.0], [0.0, 0.0, math.log(98)]], LOG5),
    ],
)
def test_anchor_cross_entropy__equals_hand_computed(logits, expected):
    assert anchor_cross_entropy(torch.tensor(logits)).item() == pytest.approx(expected, rel=1e-6)


def test_anchor_cross_entropy__leaves_out_above_the_confidence():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]], dtype=torch.float64)  # p = 3/4
    assert anchor_cross_entropy(logits, 0.7499).item() == 0
    assert anchor_cross_entropy(logits, 0.7501).item() == pytest.approx(-math.log(0.75))


@pytest.mark.parametrize('num_classes', [2, 6])
@pytest.mark.parametrize('size', [8.0, 1e4])
def test_anchor_cross_entropy__is_zero_where_all_are_confident(num_classes, size):
    logits = (size * torch.eye(num_classes)).requires_grad_()
    loss = anchor_cross_entropy(logits)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(num_classes, num_classes))


def test_anchor_cross_entropy__stays_finite_with_extreme_logits():
    logits = torch.tensor([[-1e4, 1e4, 0.0], [0.0, 1e4, 0.0], [1e4, 1e4, -1e4]], requires_grad=True)
    loss = anchor_cross_entropy(logits)
    loss.backward()
    # c = 2e4, 0 (left out), 2e4 + log 2; dL/dc_k = (2 c_k - L) / sum c = 1/2 each.
    assert loss.item() == pytest.approx(2e4 + LOG2 / 2, rel=1e-6)
    expected = torch.tensor([[-0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.25, 0.25, -0.5]])
    assert torch.allclose(logits.grad, expected, atol=1e-4)


def test_anchor_cross_entropy__does_not_hide_nan():
    assert torch.isnan(anchor_cross_entropy(torch.tensor([[float('nan'), 0.0], [0.0, 9.0]])))


@pytest.mark.parametrize(
    ('logits', 'threshold', 'expected'),
    [
        ([[0.0, 0.0], [0.0, 0.0]], 0.4, False),  # a tie: the second row's largest comes first
        ([[math.log(3), 0.0], [0.0, math.log(3)]], 0.74, True),
        ([[math.log(3), 0.0], [0.0, math.log(3)]], 0.76, False),
        ([[9.0, 0.0], [0.0, math.log(3)]], 0.76, False),
        ([[9.0, 0.0], [0.0, 9.0]], 0.8, True),
        ([[0.0, 9.0], [9.0, 0.0]], 0.8, False),
        ([[9.0, 0.0], [9.0, 0.0]], 0.8, False),
        # p = 0.4 but not the largest, which is 0.6
        ([[math.log(0.4), math.log(0.6)], [0.0, 9.0]], 0.3, False),
        # p = 0.4 and the largest
        ([[math.log(0.4), math.log(0.3), math.log(0.3)], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]], 0.3, True),
        ([[float('nan'), 0.0], [0.0, 9.0]], 0.8, False),
        ([[1e4, -1e4], [-1e4, 1e4]], 0.999, True),
    ],
)
def test_anchor_scores__open_the_gate_as_the_table_says(logits, threshold, expected):
    right, probability = anchor_scores(torch.tensor(logits))
    assert right.dtype == torch.bool and right.shape == probability.shape == (len(logits),)
    assert (right & (probability > threshold)).all().item() is expected


def test_anchor_scores__tell_of_each_anchor():
    # Right and sure; right but unsure; wrong.
    right, probability = anchor_scores(torch.tensor([[9.0, 0.0, 0.0], [0.0, math.log(2), 0.0], [9.0, 0.0, 0.0]]))
    assert right.tolist() == [True, True, False]
    assert probability.tolist() == pytest.approx(
        [1 / (1 + 2 * math.exp(-9)), 0.5, math.exp(-9) / (1 + 2 * math.exp(-9))]
    )
