"""Each loss of a SAR head has its own gradient, as methods that weigh or project gradients per loss need it."""

import copy

import pytest
import torch

KINDS = ('cls', 'vit', 'seg')


def losses_of(model, images, samples):
    """The losses of the main head by name, at the feature in front of its classifier, and that feature."""
    head = model.decode_head if hasattr(model, 'decode_head') else model.head
    seen = []
    handle = head.classifier_layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    losses = model.loss(images, samples)
    handle.remove()
    prefix = 'decode.' if hasattr(model, 'decode_head') else ''
    task = losses[f'{prefix}loss_ce' if prefix else 'loss']
    return dict(task=task, anchor=losses[f'{prefix}loss_anchor'], pull=losses[f'{prefix}loss_pull']), seen[0]


@pytest.fixture(params=KINDS)
def step(request, make_model, make_batch, sar_heads, open_gate):
    """Losses and feature of a step with an open gate, without dropout, and parameters of the backbone."""
    model = make_model(request.param, sar=True)
    for module in model.modules():
        if 'Dropout' in type(module).__name__:
            module.p = 0.0
    for head in sar_heads(model):
        open_gate(head)
    losses, feature = losses_of(model, *make_batch(request.param))
    assert losses['pull'] > 0 and losses['anchor'] > 0
    return losses, [feature, *model.backbone.parameters()]


def gradients(loss, leaves, **options):
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True, **options)
    return [torch.zeros_like(leaf) if each is None else each for leaf, each in zip(leaves, found)]


@pytest.mark.parametrize('order', [('task', 'anchor', 'pull'), ('pull', 'anchor', 'task')])
def test_losses__have_gradients_of_their_own_in_any_order(step, order):
    losses, leaves = step
    total = gradients(sum(losses.values()), leaves)
    for _ in range(2):
        single = {name: gradients(losses[name], leaves) for name in order}
        for index, expected in enumerate(total):
            torch.testing.assert_close(sum(each[index] for each in single.values()), expected, rtol=1e-4, atol=1e-6)
        assert single['pull'][0].abs().sum() > 0 and single['task'][0].abs().sum() > 0
        assert not single['anchor'][0].any()  # anchors lead, features follow


def test_losses__of_the_pull_are_differentiated_twice(step):
    losses, (feature, *_) = step
    (first,) = torch.autograd.grad(losses['pull'], feature, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), feature)
    # The pull is quadratic: its gradient is linear, with the factor that the squares show.
    factor = 0.2 / feature.shape[1] / (feature.numel() / feature.shape[1])
    valid = first.detach().abs().sum(dim=1, keepdim=True) > 0
    if feature.dim() == 2:
        torch.testing.assert_close(second, 2 * factor * first.detach())
    else:
        ratio = (second / first.detach())[valid.expand_as(second) & (first.detach().abs() > 1e-8)]
        torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-3, atol=0)


@pytest.mark.parametrize('kind', KINDS)
def test_task_loss__has_the_second_order_of_the_stock_head(kind, make_model, make_batch):
    found = []
    for sar in (False, True):
        model = make_model(kind, sar=sar)
        torch.manual_seed(0)
        losses = model.loss(*copy.deepcopy(make_batch(kind)))
        task = losses['decode.loss_ce' if kind == 'seg' else 'loss']
        parameters = list(model.backbone.parameters())
        first = torch.autograd.grad(task, parameters, create_graph=True)
        penalty = sum(each.square().sum() for each in first)
        found.append(torch.autograd.grad(penalty, parameters))
    assert all(torch.equal(*pair) for pair in zip(*found))
