"""--help of every tool: what it does, an example, and no import that takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
SCRIPTS = sorted(path for path in TOOLS.rglob('*.py') if "if __name__ == '__main__':" in path.read_text())
HEAVY = ('torch', 'mmengine', 'mmseg', 'mmpretrain', 'sar_mm', 'numpy', 'sklearn', 'matplotlib')


def test_help__is_checked_of_all_tools():
    assert {'train.py', 'test.py', 'demo.py', 'to_onnx.py', 'class_counts.py'} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_help__says_what_the_tool_does_and_imports_nothing_heavy(path):
    command = [sys.executable, '-X', 'importtime', str(path), '--help']
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr[-2000:]
    imported = {line.rpartition('|')[2].strip().split('.')[0] for line in result.stderr.splitlines()}
    assert 'argparse' in imported and not imported & set(HEAVY)
    usage, _, text = result.stdout.partition('\n\n')
    assert usage.startswith('usage:') and f'    python tools/{path.relative_to(TOOLS)}' in text
