"""SAR versions of mmseg's heads, fed with features directly."""

import copy
import importlib.util
from contextlib import contextmanager
from pathlib import Path

import mmcv
import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

decode_heads = pytest.importorskip('mmseg.models.decode_heads')

from sar_mm.models.heads import decode_heads as sar_decode_heads  # noqa: E402
from sar_mm.models.heads.mixin import classify_rows  # noqa: E402

BN = dict(type='BN')
CE = dict(type='mmseg.CrossEntropyLoss')
OHEM = dict(type='mmseg.OhemCrossEntropy', min_kept=10)
# Four levels of 16 channels and 16, 8, 4 and 2 pixels; 64 pixels of labels.
LEVELS = (16, 8, 4, 2)
ALL = dict(in_channels=[16] * 4, in_index=[0, 1, 2, 3])
FCN = dict(in_channels=16, in_index=1, channels=16, num_classes=5, norm_cfg=BN, loss_decode=CE)
KERNEL_UPDATE = dict(
    type='mmseg.KernelUpdateHead',
    num_classes=5,
    num_ffn_fcs=2,
    num_heads=2,
    num_mask_fcs=1,
    feedforward_channels=16,
    in_channels=16,
    out_channels=16,
    dropout=0.0,
    conv_kernel_size=1,
    feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), act_cfg=None),
    kernel_updator_cfg=dict(type='mmseg.KernelUpdator', in_channels=16, feat_channels=16, out_channels=16),
)
# Options of each head, and what its features look like where they are not LEVELS.
OPTIONS = dict(
    ANNHead=dict(in_channels=[16, 16], in_index=[0, 1], project_channels=8),
    APCHead=dict(pool_scales=(1, 2)),
    ASPPHead=dict(dilations=(1, 2)),
    CCHead=dict(),
    DAHead=dict(pam_channels=8),
    DDRHead=dict(loss_decode=[OHEM, OHEM]),
    DepthwiseSeparableASPPHead=dict(dilations=(1, 2), c1_in_channels=16, c1_channels=8),
    DepthwiseSeparableFCNHead=dict(num_convs=1),
    DMHead=dict(filter_sizes=(1, 3)),
    DNLHead=dict(),
    DPTHead=dict(
        in_channels=[16] * 4,
        in_index=[0, 1, 2, 3],
        input_transform='multiple_select',
        embed_dims=16,
        post_process_channels=[8] * 4,
    ),
    EMAHead=dict(ema_channels=16, num_bases=4, num_stages=2),
    EncHead=dict(in_channels=[16] * 3, in_index=[0, 1, 2], num_codes=4, loss_se_decode=dict(CE, use_sigmoid=True)),
    FCNHead=dict(num_convs=1),
    FPNHead=dict(ALL, feature_strides=[4, 8, 16, 32]),
    GCHead=dict(),
    ISAHead=dict(isa_channels=8, down_factor=(4, 4)),
    LightHamHead=dict(
        in_channels=[16] * 3,
        in_index=[0, 1, 2],
        ham_channels=16,
        ham_kwargs=dict(MD_S=1, MD_R=4, train_steps=2, eval_steps=2, inv_t=100, rand_init=True),
    ),
    LRASPPHead=dict(
        in_channels=[16] * 3, in_index=[0, 1, 2], input_transform='multiple_select', branch_channels=(8, 8)
    ),
    IterativeDecodeHead=dict(
        num_stages=2,
        kernel_generate_head=dict(FCN, type='mmseg.FCNHead', num_convs=1),
        kernel_update_head=[KERNEL_UPDATE] * 2,
    ),
    NLHead=dict(),
    OCRHead=dict(ocr_channels=8),
    PIDHead=dict(loss_decode=[CE, OHEM, dict(type='mmseg.BoundaryLoss'), OHEM]),
    PointHead=dict(ALL, num_fcs=2, norm_cfg=None),
    PSAHead=dict(mask_size=(8, 8)),
    PSPHead=dict(pool_scales=(1, 2)),
    SegformerHead=dict(ALL),
    SETRMLAHead=dict(ALL, mla_channels=4),
    SETRUPHead=dict(up_scale=2),
    UPerHead=dict(ALL, pool_scales=(1, 2)),
)
# Heads that use mmcv's operators: where these lie, and whether they are compiled ones.
OPERATORS = dict(CCHead=('cc_attention', 'CrissCrossAttention'), PointHead=('point_sample', 'point_sample'))
COMPILED = ('PSAHead',)
HAS_COMPILED = importlib.util.find_spec('mmcv._ext') is not None
SIZES = dict(LRASPPHead=(60, 54, 50), SETRMLAHead=(4,) * 4, DPTHead=(4,) * 4)
TRAIN_CFG = ConfigDict(num_points=40, oversample_ratio=3, importance_sample_ratio=0.75)
TEST_CFG = ConfigDict(subdivision_steps=2, subdivision_num_points=30, scale_factor=2)


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


def features(name, train=True):
    """The inputs that a head's loss (or, unless ``train``, its predict) takes in front of the samples."""
    generator = torch.Generator().manual_seed(3)

    def draw(channels, size):
        return torch.randn(2, channels, size, size, generator=generator).requires_grad_()

    if name == 'DDRHead':
        levels = (draw(8, 8), draw(16, 8))
        return (levels if train else levels[1],)
    if name == 'PIDHead':
        levels = (draw(8, 8), draw(16, 8), draw(8, 8))
        return (levels if train else levels[1],)
    levels = tuple(draw(16, size) for size in SIZES.get(name, LEVELS))
    if name == 'DPTHead':
        levels = tuple((level, level.mean((2, 3))) for level in levels)
    return (levels, draw(5, 8)) if name in ('OCRHead', 'PointHead') else (levels,)


def build(name, sar, **options):
    if name in COMPILED and not HAS_COMPILED:
        pytest.skip(f'{name} needs the compiled operators of mmcv')
    module = sar_decode_heads if sar else decode_heads
    common = {} if name == 'IterativeDecodeHead' else FCN
    torch.manual_seed(0)
    head = getattr(module, f'SAR{name}' if sar else name)(**{**common, **OPTIONS[name], **options})
    head.init_weights()
    return head


def fcn(sar, **options):
    return build('FCNHead', sar, **dict(dict(loss_decode=CE), **options))


def equal(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


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
    assert equal(*logs)
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


@contextmanager
def seen_by(layer):
    seen = []
    handle = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    yield seen
    handle.remove()


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


def pull_by_hand(head, feature, samples, ignored):
    """The pull loss with loops, over the pixels that nearest-neighbour interpolation picks."""
    height, width = feature.shape[2:]
    total = count = 0
    for each, sample in zip(feature, samples):
        label = sample.gt_sem_seg.data[0]
        rows = [row * label.shape[0] // height for row in range(height)]
        columns = [column * label.shape[1] // width for column in range(width)]
        label = label[rows][:, columns]
        for index in range(len(head.anchor_head.semantic_anchors)):
            inside = (label == index) & (label != ignored)
            centre = head.anchor_head.semantic_anchors[index][:, None]
            total = total + (each[:, inside] - centre).square().sum()
            count = count + inside.sum()
    return total / (feature.shape[1] * count)


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
    assert equal(*logs) and set(logs[1]) - set(logs[0]) == added_keys
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
