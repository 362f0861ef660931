"""Which heads have a SAR version, and what one hears of the others."""

import importlib
import pickle

import pytest
import torch
from mmengine.registry import DefaultScope

from sar_mm.models import with_semantic_anchors
from sar_mm.models.heads import HeadAdapter, RefusedHead
from sar_mm.registry import MODELS

PLACES = dict(mmseg='mmseg.models.decode_heads', mmpretrain='mmpretrain.models.heads')


def heads_of(toolbox):
    """Every head in the toolbox's registry, by name."""
    registry = pytest.importorskip(f'{toolbox}.registry').MODELS
    pytest.importorskip(f'{toolbox}.models')
    place = PLACES[toolbox]
    return {
        name: head
        for name, head in registry.module_dict.items()
        if head.__module__.startswith(place) or (name.endswith('Head') and head.__module__.startswith(toolbox))
    }


@pytest.mark.parametrize('toolbox', PLACES)
def test_registry__knows_every_head_of_the_toolbox(toolbox):
    heads = heads_of(toolbox)
    unknown = sorted(name for name in heads if f'SAR{name}' not in MODELS.module_dict)
    assert unknown == [], 'neither supported nor refused: add them to sar_mm/models/heads'
    supported = [name for name in heads if not issubclass(MODELS.module_dict[f'SAR{name}'], RefusedHead)]
    assert len(supported) >= dict(mmseg=30, mmpretrain=12)[toolbox]


REFUSED = [
    ('mmseg', 'STDCHead', 'makes from the labels'),
    ('mmseg', 'SegmenterMaskTransformerHead', 'use SARFCNHead'),
    ('mmseg', 'SideAdapterCLIPHead', 'text embeddings'),
    ('mmseg', 'MaskFormerHead', 'use SARUPerHead'),
    ('mmseg', 'Mask2FormerHead', 'use SARUPerHead'),
    ('mmseg', 'VPDDepthHead', 'regresses depth'),
    ('mmseg', 'KernelUpdateHead', 'use SARIterativeDecodeHead'),
    ('mmpretrain', 'ClsHead', 'use SARLinearClsHead'),
    ('mmpretrain', 'MultiLabelClsHead', 'use SARMultiLabelLinearClsHead'),
    ('mmpretrain', 'MIMHead', 'self-supervised'),
    ('mmpretrain', 'MoCoV3Head', 'self-supervised'),
    ('mmpretrain', 'ITCHead', 'text'),
]


@pytest.mark.parametrize(('toolbox', 'name', 'reason'), REFUSED, ids=lambda value: value)
def test_refused_heads__say_why_and_what_instead(toolbox, name, reason):
    heads = heads_of(toolbox)
    registry = importlib.import_module(f'{toolbox}.registry').MODELS
    message = f'^{name} can have no semantic anchors: .*{reason}'
    with DefaultScope.overwrite_default_scope(toolbox):
        for kind in (f'SAR{name}', f'sar_mm.SAR{name}'):
            with pytest.raises(TypeError, match=message):
                registry.build(dict(type=kind, in_channels=4, num_classes=3))
    with pytest.raises(TypeError, match=message):
        with_semantic_anchors(heads[name])

    class Derived(heads[name]):
        pass

    with pytest.raises(TypeError, match=f'^Derived can have no semantic anchors: .*{reason}'):
        with_semantic_anchors(Derived)


@pytest.mark.parametrize('toolbox', PLACES)
def test_refused_heads__one_sentence_each(toolbox):
    refused = [MODELS.module_dict[f'SAR{name}'] for name in heads_of(toolbox)]
    reasons = [each.reason for each in refused if issubclass(each, RefusedHead)]
    assert len(reasons) >= 7
    # What it is, and after the semicolon what to do instead.
    assert all(reason.count(';') == 1 and not reason.endswith('.') and len(reason) < 240 for reason in reasons)


# ----- with_semantic_anchors


@pytest.fixture
def fcn():
    """FCNHead, its options, its features and its labels."""
    heads = pytest.importorskip('mmseg.models.decode_heads')
    options = dict(in_channels=8, channels=16, num_classes=5, num_convs=1, concat_input=False)
    feats = (torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)),)
    return heads.FCNHead, options, feats


def test_with_semantic_anchors__users_head_in_one_line(fcn, make_seg_samples, added_keys):
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS as SEG_MODELS

    FCNHead, options, feats = fcn

    class MyHead(FCNHead):
        pass

    MODELS.register_module(module=with_semantic_anchors(MyHead), name='SARMyHead', force=True)
    with DefaultScope.overwrite_default_scope('mmseg'):
        heads = [SEG_MODELS.build(dict(options, type=name)) for name in ('SARMyHead', 'sar_mm.SARMyHead')]
    assert all(isinstance(head, MyHead) and isinstance(head, HeadAdapter) for head in heads)
    assert type(heads[0]).__name__ == 'SARMyHead' and type(heads[0]).__doc__.startswith('MyHead ')
    losses = heads[0].loss(feats, make_seg_samples(), None)
    assert set(losses) == {'loss_ce', 'acc_seg'} | added_keys
    assert losses['loss_anchor'] > 0.5


def test_with_semantic_anchors__of_a_sar_head(fcn):
    with pytest.raises(TypeError, match='SARFCNHead has semantic anchors already'):
        with_semantic_anchors(with_semantic_anchors(fcn[0]))


@pytest.mark.parametrize('head_class', [torch.nn.Linear, dict])
def test_with_semantic_anchors__unknown_class(head_class):
    with pytest.raises(TypeError, match=rf'of {head_class.__name__}: derive .* HeadAdapter'):
        with_semantic_anchors(head_class)


def test_with_semantic_anchors__explicit_adapter_comes_first(fcn):
    FCNHead, options, _ = fcn
    base = type(with_semantic_anchors(FCNHead).__mro__[1].__name__, (with_semantic_anchors(FCNHead).__mro__[1],), {})
    sar_class = with_semantic_anchors(FCNHead, adapter=base)
    assert sar_class.__mro__[1] is base
    assert sar_class(**options).anchor_head.semantic_anchors.shape == (5, 16)


@pytest.mark.parametrize('toolbox', ['mmseg', 'mmpretrain'])
def test_sar_classes__pickle_by_reference(toolbox):
    pytest.importorskip(f'{toolbox}.models')
    module = pytest.importorskip(f'sar_mm.models.heads.{"decode_heads" if toolbox == "mmseg" else "cls_heads"}')
    classes = [getattr(module, name) for name in module.__all__]
    assert len(classes) >= (30 if toolbox == 'mmseg' else 12)
    assert [pickle.loads(pickle.dumps(each)) for each in classes] == classes
    assert [each.__name__ for each in classes] == list(module.__all__)


def test_with_semantic_anchors__own_head_with_the_adapter_of_another():
    heads = pytest.importorskip('mmpretrain.models.heads')
    from mmpretrain.structures import DataSample

    from sar_mm.models.heads.cls_heads import LinearClsHeadAdapter

    class MyClsHead(heads.ClsHead):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(6, 3)

        def forward(self, feats):
            return self.fc(feats[-1])

    head = with_semantic_anchors(MyClsHead, adapter=LinearClsHeadAdapter)()
    losses = head.loss((torch.randn(4, 6),), [DataSample().set_gt_label(label) for label in (0, 1, 2, 0)])
    assert head.anchor_head.semantic_anchors.shape == (3, 6) and losses['loss_anchor'] > 0
