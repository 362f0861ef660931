import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / 'sar_mm'
OTHERS = [path for path in PACKAGE.rglob('*.py') if path.relative_to(PACKAGE).parts[0] != 'cli']


@pytest.mark.parametrize('path', OTHERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_cli__is_imported_by_tools_only(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding='utf-8'))))
    modules = [node.module or '' for node in nodes if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names]
    assert not any('cli' in name.split('.') for name in modules + names)
