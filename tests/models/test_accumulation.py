"""Accumulated gradients: the semantic anchors move once per forward pass."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from small_models import KINDS, gate_of, head_of, make_batch, make_model
from state_dicts import mean_of


@pytest.mark.parametrize('kind', KINDS)
def test_accumulation__two_half_batches(kind, opened):
    options = opened(kind, dict(momentum=0.75))
    model, reference = make_model(**options), make_model(**options)
    for each in (model, reference):
        head_of(each).anchor_head.initialized.fill_(True)  # S is 0
    start = copy.deepcopy(dict(model.named_parameters()))
    anchor_head = head_of(model).anchor_head
    embedded = anchor_head.projector(anchor_head.anchors).detach()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2)
    optimizer.initialize_count_status(model, 0, 2)
    halves = []
    for rank in range(2):
        reference.zero_grad()
        torch.manual_seed(rank)
        losses = reference(**make_batch(kind, 0, rank, 2), mode='loss')
        assert gate_of(losses) == 1
        reference.parse_losses(losses)[0].backward()
        halves.append({name: each.grad.clone() for name, each in reference.named_parameters()})

        torch.manual_seed(rank)
        model.train_step(make_batch(kind, 0, rank, 2), optimizer)
        # Once per forward pass, each time towards the same embedded anchors.
        torch.testing.assert_close(anchor_head.semantic_anchors, (1 - 0.75 ** (rank + 1)) * embedded)
        moved = [name for name, each in model.named_parameters() if not torch.equal(each, start[name])]
        assert bool(moved) == (rank == 1)
    for name, gradient in mean_of(halves).items():
        torch.testing.assert_close(dict(model.named_parameters())[name], start[name] - 0.1 * gradient)
