"""Small semi-supervised models and batches of them; lets the tests here import the helpers next to them."""

import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement

sys.path.append(str(Path(__file__).parent))
SIZE = 16


def classifier(sar, num_classes):
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(num_classes=num_classes, mean=[127.5] * 3, std=[127.5] * 3),
        backbone=dict(type='CIFARResNet', depth=8, base_channels=4),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='SARLinearClsHead' if sar else 'LinearClsHead',
            num_classes=num_classes,
            in_channels=16,
            loss=dict(type='CrossEntropyLoss'),
        ),
    )


def segmentor(sar, num_classes):
    head = 'SARFCNHead' if sar else 'FCNHead'
    fcn = dict(type=head, channels=8, num_convs=1, concat_input=False, num_classes=num_classes)
    fcn.update(norm_cfg=dict(type='BN'), dropout_ratio=0)
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, size=(SIZE, SIZE)),
        backbone=dict(
            type='ResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=dict(type='BN'), strides=(1, 1, 1, 1)
        ),
        decode_head=dict(fcn, in_channels=32, in_index=3),
        auxiliary_head=dict(fcn, in_channels=16, in_index=2),
        train_cfg=dict(),
        test_cfg=ConfigDict(mode='whole'),
    )


@pytest.fixture(scope='session')
def make_semi():
    """Build a semi-supervised model (kind cls or seg), or its plain one where ``semi`` is None, from the same seed."""

    def make(kind, sar=False, semi=None, num_classes=3):
        toolbox = 'mmpretrain' if kind == 'cls' else 'mmseg'
        pytest.importorskip(f'{toolbox}.models')
        plain = (classifier if kind == 'cls' else segmentor)(sar, num_classes)
        wrapped = dict(type='SemiClassifier', classifier=plain) if kind == 'cls' else None
        wrapped = wrapped or dict(type='SemiSegmentor', segmentor=plain)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(toolbox):
            model = MODELS.build(plain if semi is None else dict(wrapped, semi=semi))
        model.init_weights()
        with torch.no_grad():  # predictions of all kinds, where those of a new model are all alike
            for name, parameter in model.named_parameters():
                if name.endswith(('fc.weight', 'conv_seg.weight')) and not name.startswith('teacher.'):
                    parameter.mul_(100 if kind == 'cls' else 200)
        return model.train()

    return make


def pack(kind, image, label, meta):
    if kind == 'cls':
        from mmpretrain.structures import DataSample

        sample = DataSample(metainfo=meta)
        return dict(inputs=image, data_samples=sample if label is None else sample.set_gt_label(label))
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=meta)
    if label is not None:
        sample.gt_sem_seg = PixelData(data=label[None].clone())
    return dict(inputs=image, data_samples=sample)


@pytest.fixture(scope='session')
def make_items():
    """Items of a SemiSupervisedDataset: labeled ones first; the same for the same ``step``."""

    def make(kind, labeled=3, unlabeled=4, views=1, num_classes=3, known=True, size=SIZE, step=0):
        generator = torch.Generator().manual_seed(step)

        def image():
            return torch.randint(256, (3, size, size), generator=generator, dtype=torch.uint8)

        def label():
            if kind == 'cls':
                return int(torch.randint(num_classes, (), generator=generator))
            return torch.randint(num_classes, (size, size), generator=generator)

        meta = dict(img_shape=(size, size), flip=False)
        items = [BaseDataElement(labeled=pack(kind, image(), label(), meta)) for _ in range(labeled)]
        for _ in range(unlabeled):
            truth = label()
            names = ['weak', *(f'strong{number}' for number in range(views))]
            packed = {name: pack(kind, image(), truth if known and name == 'weak' else None, meta) for name in names}
            items.append(BaseDataElement(**packed))
        return items

    return make
