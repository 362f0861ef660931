"""Tiny models without a norm that mixes samples, and batches that fall to pieces, for one process or several."""

import importlib

import torch
from mmengine.registry import DefaultScope

TOOLBOX = dict(seg='mmseg', cls='mmpretrain')
KINDS = list(TOOLBOX)
NUM_CLASSES = 5
NOT_PULLED = dict(seg=255, cls=0)


def make_model(kind, anchor_head=None, sar=True, state=None, **head):
    """Build a model, always from the same seed; ``head`` has further options of the decode or classification head."""
    importlib.import_module(f'{TOOLBOX[kind]}.models')
    importlib.import_module('sar_mm.models')
    registry = importlib.import_module(f'{TOOLBOX[kind]}.registry').MODELS
    norm_cfg = dict(type='GN', num_groups=4)
    stages = dict(depth=18, num_stages=2, stem_channels=8, base_channels=8, norm_cfg=norm_cfg)
    stages.update(strides=(1, 2), dilations=(1, 1))
    head.update(num_classes=NUM_CLASSES, in_channels=16)
    if sar:
        head.update(anchor_head=anchor_head or {})
    prefix = 'SAR' if sar else ''
    if kind == 'seg':
        head.update(type=f'{prefix}FCNHead', in_index=1, channels=16, num_convs=1, concat_input=False)
        head.update(norm_cfg=norm_cfg)
        backbone = dict(type='ResNet', out_indices=(0, 1), **stages)
        config = dict(type='EncoderDecoder', backbone=backbone, decode_head=head, train_cfg={}, test_cfg={})
    else:
        head.update(type=f'{prefix}LinearClsHead')
        backbone = dict(type='ResNet_CIFAR', out_indices=(1,), **stages)
        config = dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(TOOLBOX[kind]):
        model = registry.build(config)
    model.init_weights()
    if state is not None:
        model.load_state_dict(state)
    return model.train()


def head_of(model):
    model = getattr(model, 'module', model)
    return model.decode_head if hasattr(model, 'decode_head') else model.head


def gate_of(losses):
    (gate,) = (float(value) for name, value in losses.items() if name.endswith('anchor_gate'))
    return gate


def make_batch(kind, step=0, rank=0, world=1):
    """The part of a process of the batch of a step; in its first half, nearly all is not pulled."""
    generator = torch.Generator().manual_seed(step)
    samples = []
    if kind == 'seg':
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        images = torch.randn(4, 3, 32, 32, generator=generator)
        for index in range(4):
            label = torch.randint(NUM_CLASSES, (1, 32, 32), generator=generator)
            label[torch.rand(1, 32, 32, generator=generator) < (0.9 if index < 2 else 0.1)] = 255
            meta = dict(img_shape=(32, 32), ori_shape=(32, 32), pad_shape=(32, 32))
            samples.append(SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label)))
    else:
        from mmpretrain.structures import DataSample

        images = torch.randn(16, 3, 16, 16, generator=generator)
        labels = torch.randint(NUM_CLASSES, (16,), generator=generator)
        labels[1:8] = 0  # which the tests do not pull
        samples = [DataSample().set_gt_label(label) for label in labels]
    part = slice(len(images) * rank // world, len(images) * (rank + 1) // world)
    return dict(inputs=images[part], data_samples=samples[part])
