import importlib.util
import re
from pathlib import Path

import pytest

from sar_mm.registry import MODELS

DOCS = Path(__file__).parents[1] / 'docs'


@pytest.fixture(scope='module')
def heads():
    spec = importlib.util.spec_from_file_location('docs_heads', DOCS / 'heads.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('toolbox', ['mmseg', 'mmpretrain'])
def test_heads__tables_agree_with_the_code(toolbox, heads):
    pytest.importorskip(f'{toolbox}.models')
    page = (DOCS / 'heads.md').read_text(encoding='utf-8')
    table = re.search(rf'<!-- {toolbox} -->\n((?:\|.*\n)+)', page)[1].splitlines()[2:]
    rows = heads.rows(toolbox)
    missing = sorted(set(rows.values()) - set(table))
    assert missing == [], 'run `make docs`'
    # Heads that only other versions of the toolbox have may be in the table, too.
    others = {re.match(r'\| `(\w+)`', row)[1] for row in set(table) - set(rows.values())}
    assert not others & set(rows)
    assert all(f'SAR{name}' not in MODELS.module_dict for name in others)


def test_heads__a_row_out_of_date_is_found(heads):
    pytest.importorskip('mmseg.models')
    pytest.importorskip('mmpretrain.models')
    page = (DOCS / 'heads.md').read_text(encoding='utf-8')
    wrong = page.replace('`SARFCNHead`', '`SARFcnHead`', 1)
    assert wrong != page and heads.render(wrong).count('`SARFcnHead`') == 0
