from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from sar_mm.engine.cli import MODULE2PACKAGE

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


@pytest.fixture(autouse=True)
def cross_library_bases(monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmseg')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config__builds_its_model(path):
    from mmengine.registry import MODELS

    cfg = Config.fromfile(path)
    scope = cfg.default_scope
    with DefaultScope.overwrite_default_scope(scope), MODELS.switch_scope_and_registry(scope) as registry:
        model = registry.build(cfg.model)
    has_anchors = any('anchor_head.' in name for name in model.state_dict())
    assert has_anchors == path.name.startswith('sar_')


@pytest.mark.parametrize('path', [p for p in CONFIGS if p.parent.name == 'quickstart'], ids=lambda path: path.stem)
def test_quickstart__sar_differs_from_stock_in_the_head_type_only(path):
    if not path.name.startswith('sar_'):
        assert path.with_name(f'sar_{path.name}').is_file()
        return
    sar, stock = Config.fromfile(path).to_dict(), Config.fromfile(path.with_name(path.name[len('sar_') :])).to_dict()
    assert sar.pop('custom_imports')['imports'] == ['sar_mm']
    head = 'head' if 'head' in stock['model'] else 'decode_head'
    assert sar['model'][head]['type'] == 'SAR' + stock['model'][head]['type']
    sar['model'][head].pop('type'), stock['model'][head].pop('type')
    assert sar == stock
