"""Many classes: what would be a matrix of K x K numbers is made in blocks of rows, with the same result."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import sar_mm  # noqa: F401
from sar_mm.models import SemanticAnchorHead
from sar_mm.ops import separation

K, C = 23, 6
LOSSES = {
    'defaults': dict(),
    'separation': dict(separation_weight=0.5, separation_margin=-0.2, confidence_threshold=None),
    'adjusted': dict(type='LogitAdjustedSARLoss', class_counts=range(1, K + 1), confidence_threshold=0.99),
}


class LargestTensor(TorchDispatchMode):
    """Keeps the number of entries of the largest tensor that an operator returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, (list, tuple)) else (found,):
            if isinstance(each, torch.Tensor):
                self.largest = max(self.largest, each.numel())
        return found


def step(loss, gate_per_class):
    """The losses and what is logged, all gradients, and the semantic anchors of two steps."""
    torch.manual_seed(0)
    options = dict(gate_threshold=0.05, gate_per_class=gate_per_class, momentum=0.5, loss=loss)
    head, classifier = SemanticAnchorHead(K, C, **options).train(), nn.Linear(C, K)
    found = []
    for _ in range(2):
        feature = torch.randn(40, C, requires_grad=True)
        losses = head.loss(feature, torch.randint(K, (40,)), classifier)
        total = sum(value for name, value in losses.items() if 'loss' in name)
        parameters = [feature, *head.parameters(), *classifier.parameters()]
        found += [*losses.values(), *torch.autograd.grad(total, parameters), head.semantic_anchors.clone()]
    return found


@pytest.mark.parametrize('gate_per_class', [False, True])
@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('block', [K, 7 * K + 3])
def test_anchor_head__blocks_change_nothing(block, loss, gate_per_class, monkeypatch):
    whole = step(LOSSES[loss], gate_per_class)
    monkeypatch.setattr(separation, 'BLOCK', block)
    torch.testing.assert_close(step(LOSSES[loss], gate_per_class), whole)


@pytest.mark.parametrize('loss', LOSSES)
def test_anchor_head__blocks_leave_out_the_matrix(loss, monkeypatch):
    with LargestTensor() as whole:
        step(LOSSES[loss], False)
    assert whole.largest == K * K
    monkeypatch.setattr(separation, 'BLOCK', 2 * K)
    with LargestTensor() as parts:
        step(LOSSES[loss], False)
    assert parts.largest == 40 * C < K * K


def test_anchor_head__blocks_train_with_autocast_and_without_gradients(monkeypatch):
    monkeypatch.setattr(separation, 'BLOCK', 5 * K)
    head, classifier = SemanticAnchorHead(K, C).train(), nn.Linear(C, K)
    feature, target = torch.randn(40, C), torch.randint(K, (40,))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = head.loss(feature.requires_grad_(), target, classifier)
    losses['loss_anchor'].backward()
    assert losses['loss_anchor'].dtype == torch.float32 and classifier.weight.grad.isfinite().all()
    with torch.no_grad():
        again = head.loss(feature, target, classifier)
    assert again['loss_anchor'] == losses['loss_anchor'] and not again['loss_anchor'].requires_grad
