import pytest
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from sar_mm.checks import UsageError
from sar_mm.cli.model_types import check_model_types, has_anchors, watch_anchors
from sar_mm.engine.hooks import AnchorMonitorHook
from sar_mm.registry import HOOKS

pytest.importorskip('mmpretrain.models')
pytest.importorskip('mmseg.models')
MONITOR = dict(type='AnchorMonitorHook')


def classifier(head='SARLinearClsHead', backbone='CIFARResNet', **options):
    return dict(type='ImageClassifier', backbone=dict(type=backbone), head=dict(type=head, **options))


def segmentor(decode, auxiliary=None):
    return dict(type='EncoderDecoder', backbone=dict(type='ResNet'), decode_head=decode, auxiliary_head=auxiliary)


def config(model, scope='mmpretrain', **options):
    return Config(dict(model=model, default_scope=scope, **options))


@pytest.mark.parametrize(
    'model, scope, message',
    [
        (
            classifier('SARLinearHead'),
            'mmpretrain',
            "^model.head.type='SARLinearHead' is not registered; did you mean SARLinearClsHead",
        ),
        (classifier(backbone='CIFARResnet'), 'mmpretrain', "^model.backbone.type='CIFARResnet' is not registered; did"),
        (dict(type='ImageClasifier'), 'mmpretrain', "^model.type='ImageClasifier' .* did you mean ImageClassifier"),
        (
            segmentor([dict(type='FCNHead'), dict(type='sar_mm.SARFCNHaed')]),
            'mmseg',
            "^model.decode_head.1.type='sar_mm.SARFCNHaed' is not registered; did you mean SARFCNHead",
        ),
        (segmentor(dict(type='FCNHead'), dict(type='Xyzzy')), 'mmseg', "auxiliary_head.type='Xyzzy'.*custom_imports"),
        (
            dict(type='SemiClassifier', classifier=classifier('LinearClsHed')),
            'mmpretrain',
            "^model.classifier.head.type='LinearClsHed'",
        ),
    ],
)
def test_check_model_types__names_the_place_and_the_nearest_type(model, scope, message):
    with pytest.raises(UsageError, match=message):
        check_model_types(config(model, scope))


@MODELS.register_module()
class OwnModel(nn.Module):
    pass


@pytest.mark.parametrize(
    'model, scope',
    [
        (classifier(), 'mmpretrain'),
        (classifier('sar_mm.SARLinearClsHead'), None),  # with a prefix, no scope is needed
        (classifier('LinearClsHead', loss=dict(type='what the registry complains of')), 'mmpretrain'),
        (segmentor([dict(type='SARFCNHead'), dict(type='mmseg.FCNHead')]), 'mmseg'),
        (dict(type='OwnModel', head=dict(type='a thing of its own')), 'mmpretrain'),
        (dict(type=OwnModel, head=dict(type='a thing of its own')), 'mmpretrain'),
        (dict(type='SemiClassifier', classifier=classifier()), 'mmpretrain'),
    ],
)
def test_check_model_types__lets_others_through(model, scope):
    if scope is None:
        model = dict(model, type='mmpretrain.ImageClassifier', backbone=dict(type='sar_mm.CIFARResNet'))
    check_model_types(config(model, scope))


@pytest.mark.parametrize(
    'model, scope, expected',
    [
        (classifier(), 'mmpretrain', True),
        (classifier('LinearClsHead'), 'mmpretrain', False),
        (dict(type='SemiClassifier', classifier=classifier()), 'mmpretrain', True),
        (classifier('SARMultiTaskHead', task_heads=dict(a=dict(type='LinearClsHead'))), 'mmpretrain', True),
        (segmentor(dict(type='FCNHead'), [dict(type='SARFCNHead')]), 'mmseg', True),
        (segmentor(dict(type='FCNHead')), 'mmseg', False),
        (dict(type='OwnModel', part=dict(type='SemanticAnchorHead')), None, True),
    ],
)
def test_watch_anchors__where_the_model_has_some(model, scope, expected):
    cfg = config(model, scope, custom_hooks=[dict(type='EMAHook')], default_hooks=dict(timer=None))
    assert has_anchors(cfg) is expected
    for _ in range(2):
        watch_anchors(cfg)
        assert cfg.custom_hooks == [dict(type='EMAHook')]
        assert cfg.default_hooks == dict(timer=None, **(dict(anchor_monitor=MONITOR) if expected else {}))


@pytest.mark.parametrize('hooks', [{}, dict(default_hooks=None, custom_hooks=None), dict(custom_hooks=[])], ids=str)
def test_watch_anchors__without_other_hooks(hooks):
    cfg = config(classifier(), **hooks)
    watch_anchors(cfg)
    assert cfg.default_hooks == dict(anchor_monitor=MONITOR)


@HOOKS.register_module()
class CLITestMonitor(AnchorMonitorHook):
    """A user's own."""


@pytest.mark.parametrize(
    'hook',
    [
        *(dict(type=kind, per_class=False) for kind in ('AnchorMonitorHook', 'sar_mm.AnchorMonitorHook')),
        *(dict(type=kind) for kind in (AnchorMonitorHook, 'CLITestMonitor')),
        AnchorMonitorHook(),
    ],
    ids=['name', 'name with package', 'class', 'derived', 'built'],
)
@pytest.mark.parametrize('place', ['custom', 'default', 'by name'])
def test_watch_anchors__one_in_the_config_stays_the_only_one(hook, place):
    own = dict(custom_hooks=[hook]) if place == 'custom' else dict(default_hooks=dict(other=hook))
    own = dict(default_hooks=dict(anchor_monitor=hook)) if place == 'by name' else own
    cfg, expected = config(classifier(), **own), config(classifier(), **own)
    watch_anchors(cfg)
    assert (cfg.get('default_hooks'), cfg.get('custom_hooks')) == (
        expected.get('default_hooks'),
        expected.get('custom_hooks'),
    )


def test_watch_anchors__switched_off():
    cfg = config(classifier(), default_hooks=dict(anchor_monitor=None))
    watch_anchors(cfg)
    assert cfg.default_hooks == dict(anchor_monitor=None) and 'custom_hooks' not in cfg
