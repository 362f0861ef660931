"""Which heads have a SAR version, and what one hears of the others."""

import importlib
import inspect
import pickle

import pytest
import torch
from mmengine.registry import DefaultScope

from sar_mm.models import with_semantic_anchors
from sar_mm.models.heads import RefusedHead, SARHeadMixin
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

    if name in ('ClsHead', 'MultiLabelClsHead'):  # heads derived from these may have a classifier
        return

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


def test_with_semantic_anchors__users_head_in_one_line(fcn, make_seg_samples, added_keys):
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS as SEG_MODELS

    FCNHead, options, feats = fcn

    class MyHead(FCNHead):
        pass

    MODELS.register_module(module=with_semantic_anchors(MyHead), name='SARMyHead', force=True)
    with DefaultScope.overwrite_default_scope('mmseg'):
        heads = [SEG_MODELS.build(dict(options, type=name)) for name in ('SARMyHead', 'sar_mm.SARMyHead')]
    assert all(isinstance(head, MyHead) and isinstance(head, SARHeadMixin) for head in heads)
    assert type(heads[0]).__name__ == 'SARMyHead' and type(heads[0]).__doc__.startswith('MyHead ')
    losses = heads[0].loss(feats, make_seg_samples(), None)
    assert set(losses) == {'loss_ce', 'acc_seg'} | added_keys
    assert losses['loss_anchor'] > 0.5


def test_with_semantic_anchors__of_a_sar_head(fcn):
    with pytest.raises(TypeError, match='SARFCNHead has semantic anchors already'):
        with_semantic_anchors(with_semantic_anchors(fcn[0]))


@pytest.mark.parametrize('head_class', [torch.nn.Linear, dict])
def test_with_semantic_anchors__unknown_class(head_class):
    with pytest.raises(TypeError, match=rf'how {head_class.__name__} calls its classifier: derive .* a `mixin`'):
        with_semantic_anchors(head_class)
    with pytest.raises(TypeError, match=f'does not know the classifier of {head_class.__name__}: pass its path'):
        with_semantic_anchors(head_class, mixin=SARHeadMixin)


def test_with_semantic_anchors__own_mixin_comes_first(fcn):
    from sar_mm.models.heads.decode_heads import SARDecodeHeadMixin

    class Mixin(SARDecodeHeadMixin):
        def feature_layers(self):
            return [self.convs[0]]

    FCNHead, options, feats = fcn
    sar_class = with_semantic_anchors(FCNHead, mixin=Mixin)
    assert sar_class.__mro__[1] is Mixin
    head = sar_class(**options)
    assert head.anchor_head.semantic_anchors.shape == (5, 16)
    with head.recording() as recording:
        head(feats)
    assert recording.features == [feats[0]]


def test_with_semantic_anchors__signature_is_the_stock_one_and_anchor_head(fcn):
    FCNHead = fcn[0]

    class Plain(FCNHead):
        def __init__(self, channels=4):
            super().__init__(in_channels=8, channels=channels, num_classes=5)

    class Derived(with_semantic_anchors(Plain)):
        def __init__(self, depth):
            super().__init__(channels=depth)

    def options(head_class):
        return {name: parameter.default for name, parameter in inspect.signature(head_class).parameters.items()}

    stock = options(FCNHead)
    assert options(with_semantic_anchors(FCNHead)) == {**stock, 'anchor_head': None}
    assert list(options(with_semantic_anchors(FCNHead)))[-2:] == ['anchor_head', 'kwargs']
    assert options(with_semantic_anchors(Plain)) == dict(channels=4, anchor_head=None)
    assert list(options(Derived)) == ['depth']


@pytest.mark.parametrize('toolbox', ['mmseg', 'mmpretrain'])
def test_sar_classes__pickle_by_reference(toolbox):
    pytest.importorskip(f'{toolbox}.models')
    module = pytest.importorskip(f'sar_mm.models.heads.{"decode_heads" if toolbox == "mmseg" else "cls_heads"}')
    classes = [getattr(module, name) for name in module.__all__]
    assert len(classes) >= (30 if toolbox == 'mmseg' else 12)
    assert [pickle.loads(pickle.dumps(each)) for each in classes] == classes
    assert [each.__name__ for each in classes] == list(module.__all__)


@pytest.mark.parametrize('layer', ['fc', 'score', 'scores.-1'])
def test_with_semantic_anchors__own_head_that_names_its_classifier(layer):
    heads = pytest.importorskip('mmpretrain.models.heads')
    from mmpretrain.structures import DataSample

    class MyClsHead(heads.ClsHead):
        def __init__(self):
            super().__init__()
            name = layer.split('.')[0]
            linear = torch.nn.Linear(6, 3)
            setattr(self, name, torch.nn.ModuleList([torch.nn.Linear(2, 2), linear]) if name == 'scores' else linear)
            self.last = [linear]

        def forward(self, feats):
            return self.last[0](feats[-1])

    options = {} if layer == 'fc' else dict(classifier=layer)
    head = with_semantic_anchors(MyClsHead, **options)()
    assert head.classifier_layer is head.last[0]
    losses = head.loss((torch.randn(4, 6),), [DataSample().set_gt_label(label) for label in (0, 1, 2, 0)])
    assert head.anchor_head.semantic_anchors.shape == (3, 6) and losses['loss_anchor'] > 0
    if layer != 'fc':
        with pytest.raises(TypeError, match=r'SARMyClsHead has no layer `fc` .* with_semantic_anchors\(MyHead, class'):
            with_semantic_anchors(MyClsHead)()
