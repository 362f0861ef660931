"""SARFCNHead in detail: its samplers, losses, dropout and precision, and how anchors are classified."""

import pytest
import torch
from decode_parts import CE, fcn, features, pull_by_hand
from state_dicts import is_part
from torch import nn

from sar_mm.models.heads.mixin import classify_rows

VARIANTS = dict(
    ohem=dict(sampler=dict(type='mmseg.OHEMPixelSampler', thresh=0.7, min_kept=100)),
    ignore_0=dict(ignore_index=0),
    no_ignore=dict(ignore_index=-100),
    two_losses=dict(loss_decode=[dict(CE, loss_name='loss_ce'), dict(type='mmseg.DiceLoss', loss_name='loss_dice')]),
    binary=dict(num_classes=2, out_channels=1, threshold=0.3, loss_decode=dict(CE, use_sigmoid=True)),
    dropout_half=dict(dropout_ratio=0.5),
    no_dropout=dict(dropout_ratio=0),
)


@pytest.mark.parametrize('variant', VARIANTS)
def test_fcn_head__variants(variant, make_seg_samples, open_gate, added_keys):
    options = VARIANTS[variant]
    binary, ignored = variant == 'binary', options.get('ignore_index', 255)
    labels = (0, 1, 255) if binary else (0, 1, 2, 3, 4) if 'ignore' in variant else (0, 1, 2, 3, 4, 255)
    samples = make_seg_samples(labels=labels)
    stock, sar = fcn(False, **options).train(), fcn(True, **options).train()
    open_gate(sar)
    stock.conv_seg.load_state_dict(sar.conv_seg.state_dict())
    seen, logs = [], []
    cls_seg = type(stock).cls_seg
    stock.cls_seg = lambda feature: seen.append(feature.detach()) or cls_seg(stock, feature)
    for head in (stock, sar):
        torch.manual_seed(1)
        logs.append(head.loss(*features('FCNHead'), samples, None))
    assert is_part(*logs) and set(logs[1]) - set(logs[0]) == added_keys
    assert ('loss_dice' in logs[1]) == (variant == 'two_losses')
    assert (sar.anchor_head.ignore_index, len(sar.anchor_head.semantic_anchors)) == (ignored, 2 if binary else 5)
    assert logs[1]['anchor_gate'] == 1
    assert logs[1]['anchor_conf'].item() == pytest.approx(0.85, abs=1e-3)
    # The feature is the one before the dropout: that which the stock head gives to cls_seg.
    torch.testing.assert_close(logs[1]['loss_pull'].detach(), 0.1 * pull_by_hand(sar, seen[0], samples, ignored))
    sum(value for key, value in logs[1].items() if 'loss' in key).backward()
    assert all(parameter.grad.isfinite().all() for parameter in sar.parameters())


def test_classify__binary_head_has_two_class_logits():
    head = fcn(True, **VARIANTS['binary'])
    anchors = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    expected = anchors @ head.conv_seg.weight[0, :, 0, 0] + head.conv_seg.bias
    logits = head.classify(anchors)
    assert logits.shape == (2, 2) and logits[:, 0].tolist() == [0, 0]
    torch.testing.assert_close(logits[:, 1], expected)


def test_classify__ignores_the_dropout():
    head = fcn(True, dropout_ratio=0.9).train()
    anchors = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    expected = anchors @ head.conv_seg.weight[:, :, 0, 0].t() + head.conv_seg.bias
    torch.testing.assert_close(head.classify(anchors), expected)


def test_loss__no_valid_pixel(make_seg_samples, open_gate):
    head = fcn(True).train()
    open_gate(head)
    losses = head.loss(*features('FCNHead'), make_seg_samples(labels=(255,)), None)
    assert losses['loss_pull'] == 0 and losses['anchor_gate'] == 1
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_loss__bfloat16_autocast(make_seg_samples, open_gate):
    head = fcn(True).train()
    open_gate(head)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = head.loss(*features('FCNHead'), make_seg_samples(), None)
    assert losses['loss_anchor'].dtype == losses['loss_pull'].dtype == torch.float32
    # The anchors are classified in float32: bfloat16 would be off by some 1e-3.
    assert losses['anchor_conf'].item() == pytest.approx(0.85, abs=1e-5)


@pytest.mark.parametrize('bias', [True, False])
def test_classify_rows__equals_the_layer(bias):
    rows = torch.randn(4, 6)
    parametrized = torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 3, 1, bias=bias)).eval()
    for layer in (nn.Conv2d(6, 3, 1, bias=bias), nn.Conv2d(6, 3, 3, padding=1, bias=bias), parametrized):
        torch.testing.assert_close(classify_rows(layer, rows), layer(rows[:, :, None, None]).flatten(1))
    layer = nn.Conv1d(6, 3, 1, bias=bias)
    torch.testing.assert_close(classify_rows(layer, rows), layer(rows[:, :, None]).flatten(1))
    for layer in (nn.Linear(6, 3, bias=bias), nn.Sequential(nn.Linear(6, 3, bias=bias))):
        assert torch.equal(classify_rows(layer, rows), layer(rows))
