import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sar_mm.models.feature_head import FeatureHead
from sar_mm.models.semi.task_losses import Part, keep_running_stats, loss_modules, one_anchor_step, split_losses


class Loss(nn.Module):
    """As those of the toolboxes are called."""

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None, scale=1.0):
        loss = F.cross_entropy(pred, target, reduction='none')
        if weight is not None:
            loss = loss * weight
        if reduction_override == 'none':
            return loss
        return scale * loss.sum() / (avg_factor or len(pred))


class Head(nn.Module):
    def __init__(self, losses):
        super().__init__()
        self.loss_decode = losses


PRED = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 3, 0, 1])


def test_split_losses__returns_the_first_part_and_collects_the_others():
    loss = Loss()
    with split_losses(Head(loss), [Part(2), Part(3, torch.tensor([1.0, 0.0, 1.0])), Part(1)]) as collected:
        first = loss(PRED, TARGET, avg_factor=6)
    each = F.cross_entropy(PRED, TARGET, reduction='none')
    torch.testing.assert_close(first, each[:2].mean())
    torch.testing.assert_close(collected[0][0], (each[2] + each[4]) / 3)
    torch.testing.assert_close(collected[1][0], each[5])
    torch.testing.assert_close(loss(PRED, TARGET), each.mean())  # outside, as ever


def test_split_losses__takes_weights_of_the_batch_apart():
    loss, weight = Loss(), torch.arange(6.0)
    with split_losses(Head(loss), [Part(2), Part(4, torch.tensor([1.0, 0.0, 1.0, 1.0]))]) as collected:
        first = loss(PRED, TARGET, weight=weight, scale=2.0)
    each = 2 * F.cross_entropy(PRED, TARGET, reduction='none') * weight
    torch.testing.assert_close(first, each[:2].mean())
    torch.testing.assert_close(collected[0][0], (each[2] + each[4] + each[5]) / 4)


def test_split_losses__leaves_other_tensors_whole_whatever_their_length():
    class Watching(Loss):
        def forward(self, pred, target, table=None):
            seen.append(table)
            return super().forward(pred, target)

    seen, loss, table = [], Watching(), torch.arange(6.0)
    with split_losses(Head(loss), [Part(2), Part(4)]):
        loss(PRED, TARGET, table=table)
    assert len(seen) == 2 and all(each is table for each in seen)


def test_split_losses__gradients_are_those_of_the_parts():
    pred, loss = PRED.clone().requires_grad_(), Loss()
    with split_losses(Head(loss), [Part(2), Part(4)]) as collected:
        total = loss(pred, TARGET) + 0.5 * collected[0][0] if collected[0] else loss(pred, TARGET)
        total = total + 0.5 * collected[0][0]
    total.backward()
    other = PRED.clone().requires_grad_()
    (F.cross_entropy(other[:2], TARGET[:2]) + 0.5 * F.cross_entropy(other[2:], TARGET[2:])).backward()
    torch.testing.assert_close(pred.grad, other.grad)


def test_split_losses__adds_up_several_losses_and_calls():
    losses = nn.ModuleList([Loss(), Loss()])
    with split_losses(nn.ModuleList([Head(losses), Head(Loss())]), [Part(2), Part(4)]) as collected:
        for loss in losses:
            loss(PRED, TARGET)
    assert len(collected[0]) == 2


def test_split_losses__leaves_the_losses_of_single_pixels_to_samplers():
    loss = Loss()
    with split_losses(Head(loss), [Part(2), Part(4)]) as collected:
        each = loss(PRED, TARGET, reduction_override='none')
    assert each.shape == (6,) and collected == [[]]


def test_split_losses__an_empty_first_part_costs_nothing():
    loss = Loss()
    with split_losses(Head(loss), [Part(0), Part(6)]) as collected:
        assert loss(PRED, TARGET) == 0
    torch.testing.assert_close(collected[0][0], F.cross_entropy(PRED, TARGET))


def test_split_losses__not_image_by_image():
    loss = Loss()
    with split_losses(Head(loss), [Part(2), Part(3)]), pytest.raises(
        RuntimeError, match='Loss is called with 6 predictions for a batch of 5 images'
    ):
        loss(PRED, TARGET)
    assert 'forward' not in vars(loss)


class CountingHead(FeatureHead):
    """Returns what it is given."""

    def step(self, feature, target, classify, weight):
        return dict(loss=feature, target=target, weight=weight)


def test_one_anchor_step__gives_all_passes_to_the_last():
    model = nn.ModuleList([CountingHead(4, 4), CountingHead(4, 4)])
    first, second = (PRED[:4], TARGET[:4]), (PRED[4:], TARGET[4:], None, torch.ones(2))
    given = {}
    with one_anchor_step(model, given, is_last=False):
        assert all(head.loss(*first, None) == {} for head in model)
    with one_anchor_step(model, given, is_last=True):
        found = [head.loss(*second) for head in model]
    for each in found:
        assert torch.equal(each['loss'], PRED) and torch.equal(each['target'], TARGET)
        assert each['weight'].tolist() == [1] * 6


def test_one_anchor_step__leaves_nothing_behind():
    model = nn.ModuleList([CountingHead(4, 4)])
    with pytest.raises(KeyError), one_anchor_step(model, {}, is_last=False):
        raise KeyError
    assert 'loss' not in vars(model[0]) and model[0].loss(PRED, TARGET, None)['loss'] is PRED


def test_loss_modules__of_heads_but_not_of_anchors(make_semi):
    model = make_semi('seg', sar=True)
    assert [id(loss) for loss in loss_modules(model)] == [
        id(model.decode_head.loss_decode),
        id(model.auxiliary_head.loss_decode),
    ]


def test_keep_running_stats__uses_those_of_the_batch():
    norm = nn.BatchNorm1d(4)
    frozen = nn.BatchNorm1d(4).eval()
    model = nn.Sequential(norm, frozen)
    with keep_running_stats(model):
        out = norm(PRED)
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(4), atol=1e-6, rtol=0)
    assert torch.equal(norm.running_mean, torch.zeros(4)) and norm.num_batches_tracked == 0
    norm(PRED)
    assert norm.num_batches_tracked == 1 and frozen.track_running_stats
