"""Tiny models, batches and helpers that the tests share; lets the tests beside it import those in shared/."""

import math
import os
import random
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import setuptools  # noqa: F401  before anything imports distutils: TorchInductor imports it after, which then fails
import torch
from mmengine.config import ConfigDict
from mmengine.config import utils as config_utils
from mmengine.registry import DefaultScope

import sar_mm

sar_mm.allow_bases()  # as the tools do
sys.path.append(str(Path(__file__).parent / 'shared'))

NUM_CLASSES = 5
SEG_KINDS = ('seg', 'cascade')
ADDED = {'loss_anchor', 'loss_pull', 'anchor_acc', 'anchor_conf', 'anchor_gate', 'anchor_cos', 'anchor_cos_mean'}
# mmengine parses all metafiles of a toolbox for every `_base_` in it: 0.6 s for each config that is read.
config_utils.load = lru_cache(maxsize=None)(config_utils.load)


def pytest_runtest_setup(item):
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('needs a GPU')


def _seed(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _toolbox(kind):
    # A skip inside the fixtures leaves the rest of the tests to a stack with one of the two toolboxes only.
    return 'mmseg' if kind in SEG_KINDS else 'mmpretrain'


def _config(kind, sar, anchor_head, init_cfg):
    def head(name, **options):
        if sar:
            options.update(anchor_head=anchor_head)
        return dict(type=f'SAR{name}' if sar else name, num_classes=NUM_CLASSES, **options)

    if kind in SEG_KINDS:
        norm_cfg = dict(type='BN')
        fcn = dict(channels=16, norm_cfg=norm_cfg)
        backbone = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, norm_cfg=norm_cfg)
        backbone.update(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
        model = dict(
            type='EncoderDecoder',
            backbone=backbone,
            decode_head=head('FCNHead', in_channels=64, in_index=3, num_convs=1, **fcn),
            auxiliary_head=head('FCNHead', in_channels=32, in_index=2, num_convs=1, concat_input=False, **fcn),
            train_cfg=dict(),
            test_cfg=ConfigDict(mode='whole'),
        )
        if kind == 'cascade':
            del model['auxiliary_head']
            ocr = head('OCRHead', in_channels=64, in_index=3, ocr_channels=8, **fcn)
            model.update(type='CascadeEncoderDecoder', num_stages=2, decode_head=[model['decode_head'], ocr])
    else:
        backbone = dict(type='ResNet_CIFAR', depth=18, num_stages=2, stem_channels=8, base_channels=8)
        backbone.update(strides=(1, 2), dilations=(1, 1), out_indices=(1,))
        heads = dict(
            cls=head('LinearClsHead', in_channels=16),
            vit=head('VisionTransformerClsHead', in_channels=16),
            vit_hidden=head('VisionTransformerClsHead', in_channels=16, hidden_dim=12),
        )
        neck = dict(type='GlobalAveragePooling')
        model = dict(type='ImageClassifier', backbone=backbone, neck=neck, head=heads[kind])
    if init_cfg is not None:
        model.update(init_cfg=init_cfg)
    return model


@pytest.fixture(autouse=True)
def own_default_scope(monkeypatch):
    """Undo what a test's Runner leaves behind: the scope in which all later tests would look up their names."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', DefaultScope._instance_dict.copy())


@pytest.fixture(scope='session')
def added_keys():
    """Names that SAR adds to a head's losses."""
    return ADDED


@pytest.fixture(scope='session')
def seed():
    return _seed


@pytest.fixture(scope='session')
def make_model():
    """Build a tiny model: kinds seg, cascade, cls, vit, vit_hidden; stock or SAR; always from the same seed."""

    def make(kind, sar, anchor_head=None, init_cfg=None, init=True):
        registry = pytest.importorskip(f'{_toolbox(kind)}.registry')
        pytest.importorskip(f'{_toolbox(kind)}.models')
        from mmengine.registry import DefaultScope

        _seed(0)
        with DefaultScope.overwrite_default_scope(_toolbox(kind)):
            model = registry.MODELS.build(_config(kind, sar, anchor_head, init_cfg))
        if init:
            model.init_weights()
        return model

    return make


@pytest.fixture(scope='session')
def make_seg_samples():
    """Segmentation samples; ``labels`` are drawn from, 255 being the ignored label."""

    def make(count=2, size=64, labels=(0, 1, 2, 3, 4, 255), edges=False):
        structures = pytest.importorskip('mmseg.structures')
        from mmengine.structures import PixelData

        generator = torch.Generator().manual_seed(7)
        samples = []
        for _ in range(count):
            meta = dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size))
            sample = structures.SegDataSample(metainfo=meta)
            blocks = torch.randint(len(labels), (1, size // 4, size // 4), generator=generator)
            label = torch.tensor(labels)[blocks].repeat_interleave(4, 1).repeat_interleave(4, 2)
            sample.gt_sem_seg = PixelData(data=label)
            if edges:
                sample.gt_edge_map = PixelData(data=(label % 2).clamp(max=1))
            samples.append(sample)
        return samples

    return make


@pytest.fixture(scope='session')
def make_batch(make_seg_samples):
    """A batch for a kind of model; ``step`` varies the images."""

    def make(kind, step=0):
        generator = torch.Generator().manual_seed(100 + step)
        if kind in SEG_KINDS:
            return torch.randn(2, 3, 64, 64, generator=generator), make_seg_samples()
        from mmpretrain.structures import DataSample

        images = torch.randn(8, 3, 16, 16, generator=generator)
        return images, [DataSample().set_gt_label(index % NUM_CLASSES) for index in range(8)]

    return make


@pytest.fixture(scope='session')
def layout():
    """Names and shapes of the parameters and buffers of a module, in the order in which averaged models pair them."""

    def of(module):
        tensors = [*module.named_parameters(), *module.named_buffers()]
        return [(name, tuple(tensor.shape)) for name, tensor in tensors] + list(module.state_dict())

    return of


@pytest.fixture(scope='session')
def sar_heads():
    """The SAR heads of a model, whatever its kind."""

    def find(model):
        return [module for module in model.modules() if hasattr(module, 'anchor_head')]

    return find


@pytest.fixture(scope='session')
def open_gate():
    """Set a head's classifier such that every anchor gets its class with the probability ``confidence``."""

    @torch.no_grad()
    def open_it(head, confidence=0.85):
        layer = head.classifier_layer
        embedded = head.anchor_head.projector(head.anchor_head.anchors)
        classes = len(embedded)
        scale = math.log(confidence * (classes - 1) / (1 - confidence))
        logits = scale * torch.eye(classes)
        if layer.weight.shape[0] == 1:
            logits = scale * torch.tensor([[-1.0], [1.0]])
        layer.weight.copy_((torch.linalg.pinv(embedded) @ logits).t().reshape(layer.weight.shape))
        layer.bias.zero_()

    return open_it


@pytest.fixture(scope='session')
def run_python():
    """Run Python snippets in fresh processes, all at once, and return what they print, line by line."""

    def run(*scripts, paths=()):
        roots = [str(path) for path in paths] + [str(Path(sar_mm.__file__).parents[1])]
        roots += [path for path in [os.environ.get('PYTHONPATH')] if path]
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(roots), OMP_NUM_THREADS='1')
        pipe = subprocess.PIPE
        started = [
            subprocess.Popen([sys.executable, '-c', script], stdout=pipe, stderr=pipe, env=env, text=True)
            for script in scripts
        ]
        outputs = [process.communicate(timeout=120) for process in started]
        for process, (_, errors) in zip(started, outputs):
            assert process.returncode == 0, errors
        return [output.splitlines() for output, _ in outputs]

    return run
