"""What every SAR head keeps of its stock head, in whole models."""

import copy
import hashlib
import random

import numpy as np
import pytest
import torch
from state_dicts import equal

from sar_mm.models.heads import with_semantic_anchors

KINDS = ['seg', 'cascade', 'cls', 'vit', 'vit_hidden']
SHORT = ['seg', 'cls', 'vit_hidden']
OFF = dict(loss=dict(type='SARLoss', anchor_weight=0, pull_weight=0))
TRUNC_NORMAL = [dict(type='TruncNormal', layer='Linear', std=0.02)]


def own(state):
    return {name: value for name, value in state.items() if '.anchor_head.' not in name}


def train(model, make_batch, kind, seed, steps):
    """SGD steps with momentum and weight decay; returns the losses of each."""
    seed(1)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    log = []
    for step in range(steps):
        losses = model(*make_batch(kind, step), mode='loss')
        total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        log.append(losses)
    return log


def random_states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


def projectors(model, sar_heads):
    return {
        f'{index}.{name}': value.clone()
        for index, head in enumerate(sar_heads(model))
        for name, value in head.anchor_head.state_dict().items()
    }


# ----- The stock head's training


@pytest.mark.parametrize('kind', KINDS)
def test_weights_zero__training_is_bit_identical(kind, make_model, make_batch, seed):
    stock, sar = make_model(kind, sar=False), make_model(kind, sar=True, anchor_head=OFF)
    initial = copy.deepcopy(stock.state_dict())
    train(stock, make_batch, kind, seed, steps=5)
    train(sar, make_batch, kind, seed, steps=5)
    assert equal(stock.state_dict(), own(sar.state_dict()))
    changed = [name for name, value in stock.named_parameters() if not torch.equal(value, initial[name])]
    assert len(changed) == len(list(stock.parameters()))


@pytest.mark.parametrize('init_cfg', [None, TRUNC_NORMAL], ids=['own_init', 'trunc_normal'])
@pytest.mark.parametrize('kind', KINDS)
def test_construction__leaves_stock_weights_and_random_states(kind, init_cfg, make_model, sar_heads):
    stock = make_model(kind, sar=False, init_cfg=init_cfg)
    expected = random_states()
    sar = make_model(kind, sar=True, init_cfg=init_cfg, init=False)
    projector = projectors(sar, sar_heads)
    sar.init_weights()
    assert random_states() == expected
    assert equal(stock.state_dict(), own(sar.state_dict()))
    assert equal(projector, projectors(sar, sar_heads))
    linears = [value for name, value in projector.items() if name.endswith('.weight') and value.dim() == 2]
    assert len(linears) == 3 * len(sar_heads(sar)) and all(0.05 < value.std() < 0.5 for value in linears)


@pytest.mark.parametrize('layer', ['Linear', 'Conv2d', 'BatchNorm2d', '_BatchNorm', 'LayerNorm', 'InstanceNorm2d'])
def test_init_weights__of_the_host_leaves_the_projector(layer, fcn):
    FCNHead, options, _ = fcn
    init_cfg = [dict(type='Constant', layer=layer, val=0.25, bias=0.5)]
    head = with_semantic_anchors(FCNHead)(**options, init_cfg=init_cfg, norm_cfg=dict(type='BN'))
    before = copy.deepcopy(head.anchor_head.state_dict())
    head.init_weights()
    assert equal(before, head.anchor_head.state_dict())
    assert (head.conv_seg.weight.unique().tolist() == [0.25]) == (layer == 'Conv2d')
    assert (head.convs[0].bn.bias.unique().tolist() == [0.5]) == ('BatchNorm' in layer)


def test_construction__heads_of_one_model_share_the_seed(make_model, sar_heads):
    sar = make_model('seg', sar=True)
    first, second = (head.anchor_head.state_dict() for head in sar_heads(sar))
    assert equal(first, second)


def test_anchors_and_projector__same_in_another_process(run_python, make_model, sar_heads):
    pytest.importorskip('mmseg.models')
    script = (
        'import hashlib, torch, mmseg.models\n'
        'from sar_mm.registry import MODELS\n'
        'torch.manual_seed(3)\n'
        'head = MODELS.build(dict(type="SARFCNHead", in_channels=32, channels=16, num_classes=5, num_convs=1))\n'
        'head.init_weights()\n'
        'state = head.anchor_head.state_dict()\n'
        'print(hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest())\n'
    )
    (lines,) = run_python(script)
    state = sar_heads(make_model('seg', sar=True))[0].anchor_head.state_dict()
    here = hashlib.sha256(b''.join(value.numpy().tobytes() for value in state.values())).hexdigest()
    assert lines[-1] == here


# ----- The stock head's losses


@pytest.mark.parametrize('kind', KINDS)
def test_loss__native_losses_equal_stock(kind, make_model, make_batch, seed, added_keys):
    logs = []
    for sar in (False, True):
        model = make_model(kind, sar=sar).train()
        seed(1)
        logs.append(model(*make_batch(kind), mode='loss'))
    stock, sar = logs
    assert equal(stock, {name: sar[name] for name in stock})
    assert {name.split('.')[-1] for name in set(sar) - set(stock)} == added_keys
    assert all(sar[name].dim() == 0 and not sar[name].isnan() for name in set(sar) - set(stock))


@pytest.mark.parametrize('kind', SHORT)
def test_loss__same_keys_with_gate_closed_and_open(kind, make_model, make_batch, sar_heads, open_gate, seed):
    model = make_model(kind, sar=True)
    closed = train(model, make_batch, kind, seed, steps=1)[0]
    for head in sar_heads(model):
        open_gate(head)
    opened = model(*make_batch(kind), mode='loss')
    assert list(closed) == list(opened)
    ends = {name: value.item() for name, value in opened.items() if name.endswith(('gate', 'conf', 'acc', 'anchor'))}
    for name, value in ends.items():
        expected = 0.1625189 if name.endswith('loss_anchor') else 0.85 if name.endswith('conf') else 1
        assert 'acc_seg' in name or value == pytest.approx(expected, abs=1e-3), name
    pulls = [name for name in closed if name.endswith('loss_pull')]
    assert len(pulls) == len(sar_heads(model))
    assert all(closed[name] == 0 and opened[name] > 0 for name in pulls)


@pytest.mark.parametrize('kind', SHORT)
def test_loss__gradients_reach_backbone_classifier_and_projector(
    kind, make_model, make_batch, sar_heads, open_gate, added_keys
):
    model = make_model(kind, sar=True).train()
    for head in sar_heads(model):
        open_gate(head)
    losses = model(*make_batch(kind), mode='loss')
    pick = {key: sum(v for name, v in losses.items() if name.endswith(key)) for key in ('loss_anchor', 'loss_pull')}

    def norms(loss):
        model.zero_grad()
        loss.backward(retain_graph=True)
        groups = dict(backbone=model.backbone)
        for index, head in enumerate(sar_heads(model)):
            groups.update({f'classifier{index}': head.classifier_layer, f'projector{index}': head.anchor_head})
        for group, module in groups.items():
            yield group, sum(p.grad.abs().sum().item() for p in module.parameters() if p.grad is not None)

    anchor, pull = dict(norms(pick['loss_anchor'])), dict(norms(pick['loss_pull']))
    # The anchors lead: no gradient of the pull reaches the classifier or the projector.
    assert [group for group, norm in anchor.items() if norm == 0] == ['backbone']
    assert [group for group, norm in pull.items() if norm > 0] == ['backbone']
    assert all(np.isfinite(norm) for norm in (*anchor.values(), *pull.values()))


@pytest.mark.parametrize('kind', KINDS)
def test_loss__every_parameter_takes_part_with_gate_closed(kind, make_model, make_batch):
    model = make_model(kind, sar=True).train()
    losses = model(*make_batch(kind), mode='loss')
    model.parse_losses(losses)[0].backward()
    gates = [value.item() for name, value in losses.items() if name.endswith('gate')]
    assert gates == [0] * len(gates) and len(gates) > 0
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


# ----- Inference and checkpoints


@pytest.mark.parametrize('kind', KINDS)
def test_predict__equals_stock_bit_for_bit(kind, make_model, make_batch, seed):
    stock, sar = make_model(kind, sar=False), make_model(kind, sar=True)
    train(sar, make_batch, kind, seed, steps=1)
    stock.load_state_dict(own(sar.state_dict()))
    before = copy.deepcopy(sar.state_dict())
    tensors, results = [], []
    for model in (stock.eval(), sar.eval()):
        with torch.no_grad():
            tensors.append(model(*make_batch(kind, 9), mode='tensor'))
            results.append(model(*make_batch(kind, 9), mode='predict'))
    flat = [value if isinstance(value, (tuple, list)) else (value,) for value in tensors]
    assert all(torch.equal(one, other) for one, other in zip(*flat))
    for one, other in zip(*results):
        if kind in ('seg', 'cascade'):
            assert torch.equal(one.seg_logits.data, other.seg_logits.data)
            assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
        else:
            assert torch.equal(one.pred_score, other.pred_score)
            assert torch.equal(one.pred_label, other.pred_label)
    assert equal(before, sar.state_dict())


@pytest.mark.parametrize('kind', KINDS)
def test_checkpoint__loads_into_stock_and_back(kind, make_model):
    stock, sar = make_model(kind, sar=False), make_model(kind, sar=True)
    heads = dict(seg=('decode_head', 'auxiliary_head'), cascade=('decode_head.0', 'decode_head.1')).get(kind, ('head',))
    added = [name for name in sar.state_dict() if name not in stock.state_dict()]
    assert [name for name in sar.state_dict() if name not in added] == list(stock.state_dict())
    assert {name.split('.anchor_head.')[0] for name in added} == set(heads)
    assert len(added) == len(heads) * (3 + 3 * 3 + 2)  # three buffers; weights, norms and two biases of the projector
    forth = sar.load_state_dict(stock.state_dict(), strict=False)
    back = stock.load_state_dict(sar.state_dict(), strict=False)
    assert (forth.missing_keys, forth.unexpected_keys) == (added, [])
    assert (back.missing_keys, back.unexpected_keys) == ([], added)


@pytest.mark.parametrize('kind', KINDS)
def test_deepcopy__works_after_a_step(kind, make_model, make_batch, seed):
    model = make_model(kind, sar=True)
    train(model, make_batch, kind, seed, steps=1)
    model(*make_batch(kind), mode='loss')
    twin = copy.deepcopy(model)
    assert equal(model.state_dict(), twin.state_dict())
    logs = []
    for each in (model, twin):
        seed(2)
        logs.append(each(*make_batch(kind), mode='loss'))
    assert equal(*logs)
