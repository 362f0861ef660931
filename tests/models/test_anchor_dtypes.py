"""The buffers of the anchor head in models of other dtypes, and in averaged models."""

import pytest
import torch
from anchor_heads import C, K, embedded, load_with_torch, make_head, move_projector, step, trained
from mmengine.model import ExponentialMovingAverage, StochasticWeightAverage
from torch import nn

import sar_mm  # noqa: F401

BUFFERS = ('anchors', 'semantic_anchors', 'initialized')


# ----- Other dtypes of the model


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_state__goes_on_in_float32_whatever_the_model_is(dtype):
    torch.manual_seed(0)
    head = make_head()
    step(head)
    kept = head.semantic_anchors.clone()
    head.to(dtype)
    assert all(getattr(head, name).dtype == torch.float32 for name in BUFFERS)
    assert torch.equal(head.semantic_anchors, kept)
    assert head.projector[0].weight.dtype == dtype
    with torch.no_grad():
        head.projector[7].bias.add_(1.0)
    for _ in range(200):  # a step of 0.001 is below the rounding of half precision
        step(head)
    expected = 0.999**200 * kept + (1 - 0.999**200) * embedded(head)
    torch.testing.assert_close(head.semantic_anchors, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('move', [lambda m: m.bfloat16().float(), lambda m: m.to('meta'), lambda m: m.share_memory()])
def test_state__follows_the_module(move):
    head = trained()
    kept = head.semantic_anchors.clone()
    moved = move(head)
    assert moved is head
    devices = {each.device.type for each in [*head.parameters(), *head.buffers()]}
    assert len(devices) == 1
    if devices == {'cpu'}:
        assert torch.equal(head.semantic_anchors, kept)


def test_state__is_float32_under_another_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        head = make_head()
        step(head)
        head.loss(torch.randn(3, C), torch.tensor([0, 1, 3]), nn.Linear(C, K))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(getattr(head, name).dtype == torch.float32 for name in BUFFERS)
    assert head.projector[0].weight.dtype == torch.float64 and head.initialized.all()


# ----- Averaged models


@pytest.mark.parametrize('update_buffers', [True, False])
@pytest.mark.parametrize('kind', [ExponentialMovingAverage, StochasticWeightAverage])
def test_state__of_an_averaged_model_keeps_flag_and_average_together(kind, update_buffers):
    options = dict(momentum=0.1) if kind is ExponentialMovingAverage else {}
    head = make_head(momentum=0.5)
    averaged = kind(head, update_buffers=update_buffers, **options)
    averaged.update_parameters(head)  # before the anchors start
    values, shares = [], []
    for number in range(4):
        step(head)
        move_projector(head)
        averaged.update_parameters(head)
        share = 1 / (number + 2) if kind is StochasticWeightAverage else 0.1
        shares = [each * (1 - share) for each in shares] + [share]
        values.append(head.semantic_anchors.clone())
    expected = sum(share * value for share, value in zip(shares, values)) / sum(shares)
    if not update_buffers:
        expected = values[-1]

    resumed = make_head(momentum=1.0)
    load_with_torch(resumed, averaged.module.state_dict())
    step(resumed)
    torch.testing.assert_close(resumed.semantic_anchors, expected)
    assert torch.equal(resumed.initialized, torch.ones(K))
