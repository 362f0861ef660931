import pytest
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope

import sar_mm.registry
from sar_mm.registry import ANCHORS, METRICS, MODELS

CONFIGS = dict(
    SARFCNHead=dict(in_channels=4, channels=4, num_classes=3, num_convs=1),
    SARLinearClsHead=dict(in_channels=4, num_classes=3),
    SARLoss=dict(),
    SemanticAnchorHead=dict(num_classes=3, channels=4),
)
TOOLBOX = dict(SARFCNHead='mmseg', SARLinearClsHead='mmpretrain')


@pytest.mark.parametrize('scope', ['mmseg', 'mmpretrain'])
@pytest.mark.parametrize('name', CONFIGS)
def test_models__both_spellings_in_both_scopes(name, scope):
    if name in TOOLBOX:
        pytest.importorskip(f'{TOOLBOX[name]}.models')
    pytest.importorskip(f'{scope}.models')
    with DefaultScope.overwrite_default_scope(scope):
        built = [ROOT_MODELS.build(dict(CONFIGS[name], type=kind)) for kind in (name, f'sar_mm.{name}')]
    assert [type(module) for module in built] == [MODELS.module_dict[name]] * 2
    assert built[0].__class__.__name__ == name


def test_prefixed_spelling__needs_no_import_of_sar_mm(run_python):
    pytest.importorskip('mmseg.models')
    pytest.importorskip('mmpretrain.models')
    script = (
        'import sys, mmengine.registry, mmseg.registry, mmpretrain.registry as other\n'
        'assert "sar_mm" not in sys.modules\n'
        'mmengine.registry.init_default_scope({scope!r})\n'
        'for kind in {names!r}: print({registry}.get("sar_mm." + kind).__name__)\n'
    )
    names = list(CONFIGS)
    outputs = run_python(
        script.format(scope='mmseg', registry='mmseg.registry.MODELS', names=names),
        script.format(scope='mmpretrain', registry='other.MODELS', names=names),
    )
    assert outputs == [names, names]


def test_anchors_and_metrics__are_registered_once():
    assert {'GaussianAnchors', 'SimplexETFAnchors'} <= set(ANCHORS.module_dict)
    assert len(set(ANCHORS.module_dict.values())) == len(ANCHORS.module_dict)
    pytest.importorskip('mmseg.evaluation')
    with DefaultScope.overwrite_default_scope('mmseg'):
        kinds = [METRICS.parent.get(kind) for kind in ('ClassIoUMetric', 'sar_mm.ClassIoUMetric')]
    assert kinds == [METRICS.module_dict['ClassIoUMetric']] * 2


def test_register_module__refuses_a_taken_name():
    with pytest.raises(KeyError, match='SARLoss is already registered'):
        MODELS.register_module(name='SARLoss', module=dict)
    assert MODELS.get('SARLoss').__name__ == 'SARLoss'


def test_register_module__needs_parentheses():
    with pytest.raises(TypeError, match='name must be None, an instance of str, or a sequence of str'):

        @MODELS.register_module
        class Own:
            pass

    assert 'Own' not in MODELS.module_dict and 'Own' not in ROOT_MODELS.module_dict


REGISTERED = [
    ('MODELS', 'LogitAdjustedLoss'),
    ('MODELS', 'LDAMLoss'),
    ('MODELS', 'ClassBalancedLoss'),
    ('MODELS', 'CIFARResNet'),
    ('DATASETS', 'LongTailedDataset'),
    ('DATA_SAMPLERS', 'ClassPowerSampler'),
    ('HOOKS', 'ClassCountsHook'),
    ('HOOKS', 'AnchorWeightHook'),
    ('HOOKS', 'DeferredReweightingHook'),
    ('HOOKS', 'DeferredResamplingHook'),
    ('HOOKS', 'FeatureTapHook'),
    ('METRICS', 'GroupAccuracy'),
    ('METRICS', 'FeatureGeometry'),
]


@pytest.mark.parametrize('scope', ['mmseg', 'mmpretrain'])
@pytest.mark.parametrize(('registry', 'name'), REGISTERED)
def test_all_registries__both_spellings_in_both_scopes(registry, name, scope):
    pytest.importorskip(f'{scope}.models')
    own = getattr(sar_mm.registry, registry)
    with DefaultScope.overwrite_default_scope(scope), own.parent.switch_scope_and_registry(scope) as of_scope:
        found = [of_scope.get(kind) for kind in (name, f'sar_mm.{name}')]
    assert found == [own.module_dict[name]] * 2
