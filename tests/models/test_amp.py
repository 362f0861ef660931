"""Mixed precision by mmengine's AmpOptimWrapper."""

from functools import partial

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import amp

KINDS = ['seg', 'cls']
DTYPES = ['bfloat16', 'float16']
OFF = dict(loss=dict(anchor_weight=0, pull_weight=0))
LEARNING = dict(momentum=0.5, gate_threshold=0.6, loss=dict(confidence_threshold=0.99))
# By how much a loss may differ from that in float32, relatively: bfloat16 has 8 binary digits, float16 has 11.
TOLERANCE = dict(bfloat16=1e-2, float16=2e-3)
CUDA = pytest.param('cuda', marks=pytest.mark.gpu)


def autocast_on_cpu(dtype=None, **options):
    return torch.autocast('cpu', dtype=dtype, **options)


@pytest.fixture
def amp_wrapper(monkeypatch):
    """Make an AmpOptimWrapper for a device; on CPUs, which it refuses, it gets the scaler and the autocast of CPUs."""
    if not hasattr(torch, 'amp') or not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('torch before 2.3 has no loss scaling on CPUs')

    def make(model, device, dtype, lr=0.01, **options):
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        if dtype == 'float32':
            return OptimWrapper(optimizer)
        if device == 'cpu':
            monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
            monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, 'cpu'))
            monkeypatch.setattr(amp, 'autocast', autocast_on_cpu)
        return AmpOptimWrapper(optimizer=optimizer, dtype=dtype, **options)

    return make


@pytest.fixture
def train(make_batch, amp_wrapper, seed):
    def run(model, kind, device, dtype, steps=5, **options):
        seed(1)
        model = model.to(device).train()
        wrapper = amp_wrapper(model, device, dtype, **options)
        log = []
        for step in range(steps):
            images, samples = make_batch(kind, step)
            log.append(model.train_step(dict(inputs=images, data_samples=samples), wrapper))
        return log, wrapper

    return run


def values(log, name):
    return torch.stack([value for losses in log for key, value in losses.items() if key.endswith(name)])


@pytest.mark.parametrize('device', ['cpu', CUDA])
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('kind', KINDS)
def test_amp__losses_are_near_those_of_float32(kind, dtype, device, make_model, sar_heads, open_gate, train):
    logs = []
    for each in ('float32', dtype):
        model = make_model(kind, sar=True, anchor_head=LEARNING)
        for head in sar_heads(model):
            open_gate(head)
        before = [head.anchor_head.semantic_anchors.clone() for head in sar_heads(model)]
        log, wrapper = train(model, kind, device, each)
        logs.append(log)
        assert all(
            value.dtype == torch.float32 and value.isfinite().all() for losses in log for value in losses.values()
        )
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        for head, start in zip(sar_heads(model), before):
            anchors = head.anchor_head.semantic_anchors
            assert anchors.dtype == torch.float32 and not torch.equal(anchors.cpu(), start)
    expected, found = logs
    assert list(found[0]) == list(expected[0])
    assert (values(found, 'anchor_gate') == 1).all() and (values(found, 'loss_pull') > 1e-3).all()
    for name in ('loss', 'loss_anchor', 'loss_pull'):
        torch.testing.assert_close(values(found, name), values(expected, name), rtol=TOLERANCE[dtype], atol=1e-4)
    assert not torch.equal(values(found, 'loss'), values(expected, 'loss'))


@pytest.mark.parametrize('device', ['cpu', CUDA])
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('kind', KINDS)
def test_amp__weights_zero_train_the_stock_model(kind, dtype, device, make_model, train):
    stock, sar = make_model(kind, sar=False), make_model(kind, sar=True, anchor_head=OFF)
    start = {name: value.clone() for name, value in stock.named_parameters() if value.dim() > 1}
    logs = [train(model, kind, device, dtype)[0] for model in (stock, sar)]
    for losses, sar_losses in zip(*logs):
        assert all(torch.equal(sar_losses[name], value) for name, value in losses.items())
    state = sar.state_dict()
    assert all(torch.equal(state[name], value) for name, value in stock.state_dict().items())
    assert not any(torch.equal(state[name].cpu(), value) for name, value in start.items())


@pytest.mark.parametrize('kind', KINDS)
def test_amp__task_loss_is_that_of_the_stock_model(kind, make_model, make_batch, sar_heads, open_gate, seed):
    found = []
    for sar in (True, False):
        model = make_model(kind, sar=sar).train()
        if sar:
            for head in sar_heads(model):
                open_gate(head)
            state = model.state_dict()
        else:
            model.load_state_dict({name: state[name] for name in model.state_dict()})
        seed(1)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found.append(model(*make_batch(kind), mode='loss'))
    with_anchors, stock = found
    assert values([with_anchors], 'loss_pull').gt(0).all()
    assert all(torch.equal(with_anchors[name], value) for name, value in stock.items())


@pytest.mark.parametrize('kind', KINDS)
def test_amp__a_step_skipped_for_overflow_moves_the_anchors_alone(kind, make_model, sar_heads, open_gate, train):
    model = make_model(kind, sar=True)
    for head in sar_heads(model):
        open_gate(head)
    start = {name: value.clone() for name, value in model.named_parameters()}
    scale = dict(init_scale=2.0**60, growth_interval=1000)
    log, wrapper = train(model, kind, 'cpu', 'float16', steps=1, loss_scale=scale)
    assert wrapper.loss_scaler.get_scale() < 2.0**60
    assert all(torch.equal(value, start[name]) for name, value in model.named_parameters())
    for head in sar_heads(model):
        assert head.anchor_head.semantic_anchors.isfinite().all() and head.anchor_head.initialized.all()
