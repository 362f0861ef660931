"""Checkpoints and models of the tests of converters."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, DefaultScope

NEW_TORCH = hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint')
TRUST = [] if NEW_TORCH else ['--trust']
NORM = dict(norm_cfg=dict(type='BN'))
SEGMENTOR = dict(type='EncoderDecoder', train_cfg=dict(), test_cfg=ConfigDict(mode='whole'))
PYRAMID = dict(in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=8, num_classes=5, **NORM)
VIT = dict(arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32), img_size=64, patch_size=16)
MIT = dict(type='MixVisionTransformer', embed_dims=8, num_layers=[1] * 4, num_heads=[1, 2, 4, 8])
SWIN = dict(type='SwinTransformer', pretrain_img_size=64, embed_dims=8, depths=[2, 1, 1, 1], num_heads=[1, 1, 2, 2])
MODEL_CONFIGS = dict(
    segformer=('mmseg', dict(SEGMENTOR, backbone=MIT, decode_head=dict(type='SARSegformerHead', **PYRAMID))),
    upernet=(
        'mmseg',
        dict(
            SEGMENTOR,
            backbone=dict(SWIN, window_size=4),
            decode_head=dict(type='SARUPerHead', **PYRAMID),
            auxiliary_head=[dict(type='SARFCNHead', in_channels=32, in_index=2, channels=8, num_classes=5, **NORM)],
        ),
    ),
    deit=(
        'mmpretrain',
        dict(
            type='ImageClassifier',
            backbone=dict(type='DistilledVisionTransformer', **VIT),
            head=dict(type='SARDeiTClsHead', num_classes=5, in_channels=16),
        ),
    ),
    arcface=(
        'mmpretrain',
        dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=8, base_channels=8),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='SARArcFaceClsHead', num_classes=5, in_channels=64),
        ),
    ),
)


def training_checkpoint(model):
    """What mmengine's runner saves: logs are pickled objects, which PyTorch refuses to load as weights."""
    log = HistoryBuffer()
    log.update(1.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return dict(
        meta=dict(epoch=3, iter=30, dataset_meta=dict(classes=('a', 'b')), logs=[log]),
        state_dict=model.state_dict(),
        message_hub=dict(log_scalars={'train/loss': log}, runtime_info={}),
        optimizer=optimizer.state_dict(),
        param_schedulers=[],
    )


def without_anchors(config):
    """The stock config of a SAR one."""
    if isinstance(config, dict):
        kept = {key: without_anchors(value) for key, value in config.items() if key != 'anchor_head'}
        if str(kept.get('type')).startswith('SAR'):
            kept.update(type=kept['type'][len('SAR') :])
        return ConfigDict(kept) if isinstance(config, ConfigDict) else kept
    return [without_anchors(each) for each in config] if isinstance(config, list) else config


def build(scope, config):
    pytest.importorskip(f'{scope}.models')
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(config)


def assert_same_output(stock, model, images):
    stock.eval(), model.eval()
    with torch.no_grad():
        outputs = [each(images) for each in (stock, model)]
        outputs = [output if isinstance(output, (list, tuple)) else [output] for output in outputs]
        assert all(map(torch.equal, *outputs)) and len(outputs[0]) == len(outputs[1])
        for predicted, expected in zip(stock.predict(images), model.predict(images)):
            assert predicted.keys() == expected.keys() != []
            for value, other in zip(predicted.values(), expected.values()):
                assert torch.equal(getattr(value, 'data', value), getattr(other, 'data', other))
