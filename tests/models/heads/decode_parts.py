"""Decode heads of all kinds, what they are given, and the pull by hand."""

import importlib.util

import pytest
import torch
from mmengine.config import ConfigDict

decode_heads = pytest.importorskip('mmseg.models.decode_heads')

from sar_mm.models.heads import decode_heads as sar_decode_heads  # noqa: E402

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
# Heads that use compiled operators of mmcv.
COMPILED = ('PSAHead',)
HAS_COMPILED = importlib.util.find_spec('mmcv._ext') is not None
SIZES = dict(LRASPPHead=(60, 54, 50), SETRMLAHead=(4,) * 4, DPTHead=(4,) * 4)
TRAIN_CFG = ConfigDict(num_points=40, oversample_ratio=3, importance_sample_ratio=0.75)
TEST_CFG = ConfigDict(subdivision_steps=2, subdivision_num_points=30, scale_factor=2)


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
