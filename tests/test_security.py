"""What docs/security.md says of the code: nothing that runs what a file says, nothing that fetches unasked."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / 'sar_mm').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')])
REFUSED_CALLS = {'eval', 'exec', 'compile', '__import__', 'os.system', 'os.popen', 'pickle.load', 'pickle.loads'}
REFUSED_MODULES = {'urllib', 'requests', 'http', 'ftplib', 'telnetlib', 'socket', 'dill', 'joblib', 'marshal', 'shelve'}


def name_of(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return '.'.join(reversed([*parts, node.id if isinstance(node, ast.Name) else '']))


def findings(source):
    """Return what a file does that it should not, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [node.module or ''] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [(node.lineno, module) for module in modules if module.split('.')[0] in REFUSED_MODULES]
        if not isinstance(node, ast.Call):
            continue
        name, options = name_of(node.func), {option.arg: option.value for option in node.keywords}
        trusts = [getattr(options.get(option), 'value', None) for option in ('shell', 'allow_pickle')]
        if name in REFUSED_CALLS or True in trusts:
            found.append((node.lineno, name))
        if (
            name == 'torch.load'
            and 'weights_only' not in options
            or name == 'np.load'
            and 'allow_pickle' not in options
        ):
            found.append((node.lineno, name))
        if name == 'torch.load' and getattr(options.get('weights_only'), 'value', True) is False:
            found.append((node.lineno, 'torch.load, trusting'))
    return found


@pytest.mark.parametrize(
    'code, expected',
    [
        ('eval(text)', 'eval'),
        ('import os\nos.system(text)', 'os.system'),
        ('subprocess.run(text, shell=True)', 'subprocess.run'),
        ('np.load(path)', 'np.load'),
        ('np.load(path, allow_pickle=True)', 'np.load'),
        ('torch.load(path)', 'torch.load'),
        ('torch.load(path, weights_only=False)', 'torch.load, trusting'),
        ('from urllib.request import urlopen', 'urllib.request'),
    ],
)
def test_findings__are_found(code, expected):
    assert expected in [name for _, name in findings(code)]


def test_sources__run_and_fetch_nothing_that_a_file_names():
    found = {
        str(path.relative_to(ROOT)): [name for _, name in findings(path.read_text(encoding='utf-8'))]
        for path in SOURCES
    }
    assert len(found) > 100
    # A converter unpickles a file where it is told to with --trust.
    assert {path: names for path, names in found.items() if names} == {
        path: ['torch.load, trusting'] for path in found if Path(path).name == 'conversion.py'
    }


def test_import__opens_no_connection(run_python):
    """Importing the package and its models needs no network."""
    run_python(
        'import socket\n'
        'def refuse(*args, **kwargs): raise AssertionError("a connection was opened")\n'
        'socket.socket.connect = socket.getaddrinfo = refuse\n'
        'import sar_mm\n'
        'from sar_mm.registry import MODELS\n'
        'assert MODELS.get("sar_mm.SemanticAnchorHead") is not None'
    )
