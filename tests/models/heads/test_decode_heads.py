"""SAR versions of mmseg's heads, fed with features directly."""

import copy
import importlib.util
from pathlib import Path

import mmcv
import pytest
import torch
from decode_parts import HAS_COMPILED, OPTIONS, TEST_CFG, TRAIN_CFG, build, features, pull_by_hand
from layer_inputs import seen_by
from state_dicts import is_part

decode_heads = pytest.importorskip('mmseg.models.decode_heads')

from sar_mm.models.heads import decode_heads as sar_decode_heads  # noqa: E402

# Heads that use operators of mmcv that are plain PyTorch, and where these lie.
OPERATORS = dict(CCHead=('cc_attention', 'CrissCrossAttention'), PointHead=('point_sample', 'point_sample'))


@pytest.fixture(autouse=True)
def operators(monkeypatch):
    """Lend mmseg the operators that are plain PyTorch, which an mmcv without compiled ones cannot import."""
    if not HAS_COMPILED:
        for head, (file, operator) in OPERATORS.items():
            module = importlib.import_module(getattr(decode_heads, head).__module__)
            monkeypatch.setattr(module, operator, getattr(_load_operators(file), operator))


def _load_operators(file, cache={}):
    if file not in cache:
        path = Path(mmcv.__file__).parent / 'ops' / f'{file}.py'
        spec = importlib.util.spec_from_file_location(f'mmcv_{file}', path)
        cache[file] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(cache[file])
    return cache[file]


def check_gradients_of_pull(head, inputs, losses):
    """The pull moves what lies in front of the classifier, not the classifier and not the projector."""
    losses['loss_pull'].backward()
    leaves = [leaf for leaf in flatten(inputs) if leaf.grad is not None]
    assert leaves and any(leaf.grad.abs().sum() > 0 for leaf in leaves)
    assert all(leaf.grad.isfinite().all() for leaf in leaves)
    led = [*head.classifier_layer.parameters(), *head.anchor_head.parameters()]
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in led)


def flatten(inputs):
    if isinstance(inputs, torch.Tensor):
        return [inputs] if inputs.is_leaf else []
    return [leaf for each in inputs for leaf in flatten(each)]


def test_options__cover_every_head():
    assert sorted(f'SAR{name}' for name in OPTIONS) == sorted(sar_decode_heads.__all__)


@pytest.mark.parametrize('name', OPTIONS)
def test_matrix__loss_backward_predict(name, make_seg_samples, added_keys, layout):
    stock, sar = build(name, sar=False), build(name, sar=True)
    before = layout(sar)
    samples = make_seg_samples(edges=True)
    logs = []
    for head in (stock.train(), sar.train()):
        torch.manual_seed(1)
        logs.append(head.loss(*features(name), samples, TRAIN_CFG))
    assert set(logs[1]) - set(logs[0]) == added_keys
    assert is_part(*logs)
    assert all(value.isfinite().all() for value in logs[1].values())
    assert logs[1]['loss_anchor'] > 0 and logs[1]['anchor_gate'] == 0
    sum(value.mean() for key, value in logs[1].items() if 'loss' in key).backward()
    grads = {key: parameter.grad for key, parameter in sar.named_parameters()}
    added = [key for key in grads if key.startswith(('anchor_head', sar.classifier))]
    assert all(grads[key].isfinite().all() for key in added)
    assert grads[f'{sar.classifier}.weight'].abs().sum() > 0
    assert grads['anchor_head.projector.0.weight'].abs().sum() > 0
    assert layout(sar) == before

    missing = sar.load_state_dict(stock.state_dict(), strict=False)
    assert all(key.startswith('anchor_head.') for key in missing.missing_keys)
    assert missing.unexpected_keys == []
    predictions = []
    for head in (stock.eval(), sar.eval()):
        torch.manual_seed(2)
        with torch.no_grad():
            metas = [dict(img_shape=(64, 64))] * 2
            predictions.append(head.predict(*features(name, train=False), metas, TEST_CFG))
    assert predictions[0].shape == (2, 5, 64, 64)
    assert torch.equal(*predictions)


@pytest.mark.parametrize('name', [name for name in OPTIONS if name != 'PointHead'])
def test_matrix__pull_is_that_of_the_classifiers_input(name, make_seg_samples, open_gate):
    head = build(name, sar=True).train()
    getattr(head, 'kernel_generate_head', head).dropout.eval()
    open_gate(head)
    samples = make_seg_samples(edges=True)
    inputs = features(name)
    with seen_by(head.classifier_layer) as seen:
        losses = head.loss(*inputs, samples, None)
    (feature,) = seen  # without dropout; the anchors are classified by the layer's weights
    assert losses['anchor_gate'] == 1
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * pull_by_hand(head, feature, samples, 255))
    check_gradients_of_pull(head, inputs, losses)


def test_point_head__pull_at_the_sampled_points(make_seg_samples, open_gate, monkeypatch):
    head = build('PointHead', sar=True).train()
    head.dropout.eval()
    open_gate(head)
    samples = make_seg_samples()
    inputs = features('PointHead')
    stock = decode_heads.PointHead
    drawn = []
    draw = stock.get_points_train
    monkeypatch.setattr(stock, 'get_points_train', lambda *args, **kw: drawn.append(draw(*args, **kw)) or drawn[0])
    with seen_by(head.classifier_layer) as seen:
        losses = head.loss(*inputs, samples, TRAIN_CFG)
    (feature,) = seen
    assert feature.shape == (2, 16 + 5, 40)
    total = count = 0
    for each, points, sample in zip(feature, drawn[0], samples):
        for index, (x, y) in enumerate(points.tolist()):
            label = sample.gt_sem_seg.data[0, int(y * 64), int(x * 64)]
            if label != 255:
                total += (each[:, index] - head.anchor_head.semantic_anchors[label]).square().sum()
                count += 1
    assert 40 < count < 80
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * total / (21 * count))
    check_gradients_of_pull(head, inputs, losses)


def test_knet__classifier_of_the_first_head_is_refined(make_seg_samples):
    stock, sar = build('IterativeDecodeHead', sar=False), build('IterativeDecodeHead', sar=True)
    assert sar.classifier_layer is sar.kernel_generate_head.conv_seg
    added = [key for key in sar.state_dict() if key not in stock.state_dict()]
    assert added and all(key.startswith('anchor_head.') for key in added)
    without = dict(OPTIONS['IterativeDecodeHead']['kernel_generate_head'], dropout_ratio=0)
    losses = build('IterativeDecodeHead', sar=True, kernel_generate_head=without).loss(
        *features('IterativeDecodeHead'), make_seg_samples(), None
    )
    assert losses['loss_anchor'] > 0


def test_knet__feature_lies_before_the_dropout_also_in_a_copy(make_seg_samples, open_gate):
    part = dict(OPTIONS['IterativeDecodeHead']['kernel_generate_head'], dropout_ratio=0.5)
    head = build('IterativeDecodeHead', sar=True, kernel_generate_head=part).train()
    open_gate(head)
    for each in (head, copy.deepcopy(head)):
        with seen_by(each.kernel_generate_head.dropout) as seen:
            losses = each.loss(*features('IterativeDecodeHead'), make_seg_samples(), None)
        expected = pull_by_hand(each, seen[0], make_seg_samples(), 255)
        torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * expected)


def test_knet__sar_on_a_part_only(make_seg_samples):
    part = dict(OPTIONS['IterativeDecodeHead']['kernel_generate_head'], type='sar_mm.SARFCNHead')
    head = build('IterativeDecodeHead', sar=False, kernel_generate_head=part)
    with pytest.raises(RuntimeError, match='SARFCNHead .* part of another head, put SAR in front of the type of that'):
        head.loss(*features('IterativeDecodeHead'), make_seg_samples(), None)
