"""Every public function of sar_mm.ops, in low precision and under autocast, against itself in float64."""

import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm import ops

K, C = 5, 8
LOW = (torch.float16, torch.bfloat16, torch.float32)


def draw(*shape, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABELS = torch.randint(-1, K, (2, 3, 4), generator=torch.Generator().manual_seed(1))
ANCHORS = draw(K, C).double()
# A call by the tensor whose dtype is varied, and that tensor.
CASES = {
    'anchor_costs': (lambda x: ops.anchor_costs(x[1:], 1), draw(K, K, scale=3)),
    'anchor_cross_entropy': (lambda x: ops.anchor_cross_entropy(x, 0.99), draw(K, K, scale=3)),
    'anchor_cross_entropy-huge': (ops.anchor_cross_entropy, 6e4 * (1 - 2 * torch.eye(K, dtype=torch.float64))),
    'anchor_scores': (lambda x: ops.anchor_scores(x)[1], draw(K, K, scale=3)),
    'effective_number_weights': (
        lambda x: ops.effective_number_weights(x, 0.999),
        draw(K).abs().mul(100).add(1).round(),
    ),
    'nearest_labels': (lambda x: ops.nearest_labels(LABELS, (5, 7)).double() + 0 * x.sum().double(), draw(1)),
    'pairwise_cosine-largest': (lambda x: ops.pairwise_cosine(x)[0], ANCHORS),
    'pairwise_cosine-mean': (lambda x: ops.pairwise_cosine(x)[1], ANCHORS),
    'separation_loss': (lambda x: ops.separation_loss(x, -0.5), ANCHORS),
    'self_weighted_mean': (lambda x: ops.self_weighted_mean(x, None), draw(K).abs()),
    'pull_loss': (lambda x: ops.pull_loss(x, LABELS, ANCHORS.float()), draw(2, C, 3, 4)),
    'pull_loss-soft': (lambda x: ops.pull_loss(x, torch.eye(K)[:3], ANCHORS.float(), class_balanced=True), draw(3, C)),
    'pull_loss-far': (lambda x: ops.pull_loss(x, LABELS, ANCHORS.float()), draw(2, C, 3, 4, scale=3e3)),
}


def test_precision__covers_every_function():
    assert {name.split('-')[0] for name in CASES} == set(ops.__all__)


@pytest.mark.parametrize('autocast', [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('dtype', [*LOW, torch.float64], ids=str)
@pytest.mark.parametrize('name', CASES)
def test_precision__is_at_least_float32(name, dtype, autocast):
    function, values = CASES[name]
    values = values.to(dtype)
    expected = function(values.double())
    with torch.autocast('cpu', dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        found = function(values)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else found.dtype)
    is_kept = name == 'effective_number_weights'  # computed in float64, of the dtype of the counts
    assert is_kept or found.dtype in (torch.float32, torch.float64)
    assert expected.abs().sum() > 0
    tolerance = torch.finfo(dtype).eps if is_kept else 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found.double(), expected.double(), rtol=tolerance, atol=tolerance)


def test_precision__of_huge_logits_in_half_precision():
    logits = 6e4 * (1 - 2 * torch.eye(4))
    assert ops.anchor_cross_entropy(logits.half()).item() == pytest.approx(2 * 59968.0, rel=1e-3)
