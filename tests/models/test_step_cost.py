"""What SAR adds to a training step: no synchronisation with the host, and no tensor of the feature's size."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from sar_mm.models import SemanticAnchorHead
from sar_mm.ops import pull_loss

KINDS = ['seg', 'cascade', 'cls', 'vit_hidden']
# Operators after which the host knows a value, or a shape that depends on one.
SYNCHRONISING = {'aten::_local_scalar_dense', 'aten::item', 'aten::is_nonzero', 'aten::nonzero'}
NUM_CLASSES, CHANNELS, SIZE = 5, 64, 96  # several times the blocks of the pull


def profiled(function, **options):
    with profile(activities=[ProfilerActivity.CPU], **options) as profiler:
        result = function()
    return result, profiler


# ----- Synchronisation


@pytest.mark.parametrize('options', [dict(), dict(gate_per_class=True, loss=dict(class_balanced=True))])
@pytest.mark.parametrize('kind', KINDS)
def test_step__synchronises_as_often_as_the_stock_model(kind, options, make_model, make_batch, sar_heads, open_gate):
    found = []
    for sar in (False, True):
        model = make_model(kind, sar=sar, anchor_head=options)
        if sar:
            for head in sar_heads(model):
                open_gate(head)

        def step(model=model):
            losses = model(*make_batch(kind), mode='loss')
            sum(value.mean() for name, value in losses.items() if 'loss' in name).backward()
            return losses

        losses, profiler = profiled(step)
        found.append(Counter(event.name for event in profiler.events() if event.name in SYNCHRONISING))
    assert all(value == 1 for name, value in losses.items() if 'anchor_gate' in name)
    assert found[1] == found[0]


@pytest.mark.parametrize('name', ['item', 'nonzero', 'condition', 'mask'])
def test_step__synchronisation_is_noticed(name):
    x = torch.arange(3.0)
    functions = dict(item=lambda: x[0].item(), nonzero=x.nonzero, condition=lambda: bool(x[0]), mask=lambda: x[x > 1])
    _, profiler = profiled(functions[name])
    assert SYNCHRONISING & {event.name for event in profiler.events()}


@pytest.mark.gpu
@pytest.mark.parametrize('options', [dict(), dict(gate_per_class=True, loss=dict(class_balanced=True))])
@pytest.mark.parametrize('shape', [(8, CHANNELS), (2, CHANNELS, 16, 16)])
def test_anchor_head__never_waits_for_the_gpu(shape, options):
    head = SemanticAnchorHead(NUM_CLASSES, CHANNELS, **options).cuda()
    classifier = nn.Linear(CHANNELS, NUM_CLASSES).cuda()
    feature = torch.randn(shape, device='cuda', requires_grad=True)
    target = torch.randint(NUM_CLASSES, shape[:1] + shape[2:], device='cuda')

    def step():
        losses = head.loss(feature, target, classifier)
        sum(value for name, value in losses.items() if 'loss' in name).backward()

    step()  # compiles kernels and allocates what stays
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        for _ in range(3):
            step()
    finally:
        torch.cuda.set_sync_debug_mode('default')


# ----- Memory


def allocations(profiler):
    """Sizes in bytes of all allocations, the largest first."""
    sizes = [event.nbytes() for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    return sorted((size for size in sizes if size > 0), reverse=True)


def make_feature(layout, dtype):
    feature = torch.randn(2, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return feature.to(dtype=dtype, memory_format=layout).requires_grad_()


def make_target(is_soft):
    generator = torch.Generator().manual_seed(1)
    if is_soft:
        return torch.rand(2, NUM_CLASSES, SIZE, SIZE, generator=generator).softmax(dim=1)
    return torch.randint(-1, NUM_CLASSES, (2, SIZE, SIZE), generator=generator)


@pytest.mark.parametrize('is_soft', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_pull__writes_one_gradient_and_nothing_else_of_its_size(layout, dtype, is_soft):
    feature, target = make_feature(layout, dtype), make_target(is_soft)
    anchors = torch.randn(NUM_CLASSES, CHANNELS)
    size = feature.numel() * feature.element_size()
    small = size / 4 if dtype == torch.float32 else size / 2  # blocks and weights are in float32 anyway
    loss, profiler = profiled(lambda: pull_loss(feature, target, anchors), profile_memory=True)
    forward = allocations(profiler)
    assert forward and forward[0] < small
    _, profiler = profiled(loss.backward, profile_memory=True)
    gradient, *rest = allocations(profiler)
    assert gradient == size and rest[0] < small


def test_pull__adds_one_gradient_to_a_classifier():
    target = make_target(is_soft=False)
    anchors = torch.randn(NUM_CLASSES, CHANNELS)
    classifier = nn.Conv2d(CHANNELS, NUM_CLASSES, 1)

    def step(feature, is_pulled):
        feature = feature.relu()
        loss = nn.functional.cross_entropy(classifier(feature), target, ignore_index=-1)
        if is_pulled:
            loss = loss + pull_loss(feature, target, anchors)
        loss.backward()

    numbers = []
    for is_pulled in (False, True):
        feature = make_feature(torch.contiguous_format, torch.float32)
        _, profiler = profiled(
            lambda feature=feature, is_pulled=is_pulled: step(feature, is_pulled), profile_memory=True
        )
        numbers.append(sum(size >= feature.numel() * 4 for size in allocations(profiler)))
    assert numbers[1] - numbers[0] == 1
