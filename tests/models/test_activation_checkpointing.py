"""Activation checkpointing: losses, gradients and semantic anchors stay what they are without it."""

from collections import Counter
from functools import partial

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from small_models import KINDS, gate_of, head_of, make_batch, make_model
from state_dicts import equal
from torch.utils.checkpoint import checkpoint


def recompute(module, use_reentrant=False):
    module.forward = partial(checkpoint, module.forward, use_reentrant=use_reentrant)


def recompute_all(model):
    recompute(model.backbone)
    recompute(head_of(model))


def recompute_blocks(model):
    for block in (*model.backbone.layer1, *model.backbone.layer2):
        block.with_cp = True  # the option of the stock backbones


CHANGES = [
    (lambda model: recompute(model.backbone), {'backbone'}),
    (recompute_blocks, {'backbone'}),
    (lambda model: recompute(head_of(model)), {'head'}),
    (recompute_all, {'backbone', 'head'}),
]


@pytest.mark.filterwarnings('ignore:.*use_reentrant.*:UserWarning')
@pytest.mark.parametrize(('change', 'parts'), CHANGES, ids=['backbone', 'with_cp', 'head', 'both'])
@pytest.mark.parametrize('kind', KINDS)
def test_checkpointing__changes_nothing(kind, change, parts, opened):
    found = []
    for is_changed in (False, True):
        model = make_model(**opened(kind, dict(momentum=0.5)))
        if is_changed:
            change(model)
        calls = Counter()
        layers = dict(backbone=model.backbone.layer2[0].conv2, head=head_of(model).classifier_layer)
        for name, layer in layers.items():
            layer.register_forward_pre_hook(lambda *_, calls=calls, name=name: calls.update([name]))
        torch.manual_seed(0)  # of the dropout
        for step in range(2):
            losses = model(**make_batch(kind, step), mode='loss')
            model.parse_losses(losses)[0].backward()
            assert gate_of(losses) == 1
        found.append((losses, model.state_dict(), {name: each.grad for name, each in model.named_parameters()}, calls))
    (*expected, calls), (*recomputed, more_calls) = found
    assert set(more_calls - calls) == parts
    # Among the state, S: it moves once per step.
    assert all(equal(one, other) for one, other in zip(expected, recomputed))


@pytest.mark.filterwarnings('ignore:.*(requires_grad|use_reentrant).*:UserWarning')
@pytest.mark.parametrize('kind', KINDS)
def test_checkpointing__reentrant_head_is_refused(kind, opened):
    by_mmengine, by_hand = (make_model(**opened(kind)) for _ in range(2))
    turn_on_activation_checkpointing(by_mmengine, ['decode_head' if kind == 'seg' else 'head'])
    recompute(head_of(by_hand), use_reentrant=True)
    for model in (by_hand, by_mmengine):
        with pytest.raises(RuntimeError, match='use_reentrant=True runs the head twice'):
            model(**make_batch(kind), mode='loss')
