import pytest
from mmengine.config import Config

from sar_mm.cli.model_types import has_anchors
from sar_mm.cli.stock import Stock, stock_of
from sar_mm.models import with_semantic_anchors
from sar_mm.registry import MODELS

pytest.importorskip('mmpretrain.models')
pytest.importorskip('mmseg.models')
LINEAR, FCN = dict(type='SARLinearClsHead'), dict(type='SARFCNHead')


def classifier(head, **options):
    return Config(dict(default_scope='mmpretrain', model=dict(type='ImageClassifier', head=head), **options))


def segmentor(**heads):
    return Config(dict(default_scope='mmseg', model=dict(type='EncoderDecoder', **heads)))


def test_stock_of__a_config_with_a_twin_next_to_it(tmp_path):
    for name in ('a.py', 'sar_a.py'):
        (tmp_path / name).write_text('')
    given = ['randomness.seed=1', 'model.head.anchor_head.momentum=0.9', 'default_hooks.anchor_weights.end=9']
    cfg = classifier(dict(LINEAR, anchor_head=dict(momentum=0.9)), randomness=dict(seed=1))
    assert stock_of(cfg, str(tmp_path / 'sar_a.py'), given) == Stock(str(tmp_path / 'a.py'), [], given[:1])
    (tmp_path / 'a.py').unlink()
    assert stock_of(cfg, str(tmp_path / 'sar_a.py'), given) == Stock(None, [], given)


def test_stock_of__a_stock_config_and_an_option():
    for name in ('SARLinearClsHead', 'sar_mm.SARLinearClsHead'):
        assert stock_of(classifier(LINEAR), 'my.py', [f'model.head.type={name}']) == Stock('my.py', [], [])
    options = ['model.head.type=SARLinearClsHead', 'model.head.anchor_head.momentum=0.9', 'a=1']
    cfg = classifier(dict(LINEAR, anchor_head=dict(momentum=0.9)))
    assert stock_of(cfg, 'my.py', options) == Stock('my.py', [], ['a=1'])
    # A second head has anchors by the config itself.
    types = ['model.decode_head.type=FCNHead', 'model.auxiliary_head.type=FCNHead']
    given = ['model.auxiliary_head.type=SARFCNHead']
    assert stock_of(segmentor(decode_head=FCN, auxiliary_head=FCN), 'my.py', given) == Stock('my.py', types, [])


@pytest.mark.parametrize(
    'cfg, types',
    [
        (classifier(LINEAR), ['model.head.type=LinearClsHead']),
        (classifier(dict(type='sar_mm.SARLinearClsHead')), ['model.head.type=LinearClsHead']),
        (segmentor(decode_head=FCN, auxiliary_head=dict(type='FCNHead')), ['model.decode_head.type=FCNHead']),
        (
            segmentor(decode_head=[dict(type='FCNHead'), dict(type='SAROCRHead')], auxiliary_head=[FCN]),
            ['model.decode_head.1.type=OCRHead', 'model.auxiliary_head.0.type=FCNHead'],
        ),
    ],
)
def test_stock_of__a_config_that_differs_in_the_types_of_its_heads(cfg, types):
    """As one that inherits from a SAR config."""
    assert stock_of(cfg, 'my.py', ['a=1']) == Stock('my.py', types, ['a=1'])
    assert has_anchors(cfg)  # it is not changed
    cfg.merge_from_dict(dict(option.split('=') for option in types))
    assert not has_anchors(cfg)


@pytest.mark.parametrize(
    'cfg',
    [
        classifier(dict(LINEAR, anchor_head=dict(momentum=0.9))),
        classifier(dict(type='SARMultiTaskHead', task_heads=dict(a=dict(type='LinearClsHead')))),
        classifier(dict(type='SARMultiTaskHead', task_heads=dict(a=LINEAR))),
        classifier(LINEAR, custom_hooks=[dict(type='AnchorWeightHook', end=2, pull_weight=1.0)]),
        classifier(dict(type='SAROwnHead')),
        segmentor(decode_head=FCN, auxiliary_head=dict(type='SAROwnHead')),
    ],
    ids=['anchor_head', 'tasks', 'tasks with anchors', 'hook', 'own head', 'one own head'],
)
def test_stock_of__nothing_where_more_is_to_be_changed(cfg, monkeypatch):
    stock = type('OwnHead', (MODELS.get('SARLinearClsHead').__bases__[-1],), {})  # which is not registered
    monkeypatch.setitem(MODELS.module_dict, 'SAROwnHead', with_semantic_anchors(stock))
    assert stock_of(cfg, 'my.py', ['a=1']) == Stock(None, [], ['a=1'])


def test_stock_of__the_class_of_a_head_instead_of_its_name():
    kind = MODELS.get('SARLinearClsHead')
    assert stock_of(classifier(dict(type=kind)), 'my.py', []) == Stock(None, [], [])
