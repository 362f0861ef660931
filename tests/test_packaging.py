import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STACKS = re.compile(r'^(onedl-|mm|torchvision)')


def names(lines):
    return {re.split(r'[<>=! ;\[]', line)[0] for line in lines if line.strip() and not line.startswith(('#', '-'))}


def requirements(name):
    return (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()


def test_requirements__the_package_itself_pulls_in_no_stack():
    assert not any(STACKS.match(name) for name in names(requirements('runtime')))
    metadata = subprocess.run(
        [sys.executable, '-c', 'from importlib.metadata import requires; print("\\n".join(requires("sar_mm")))'],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    required = [line for line in metadata if 'extra ==' not in line]
    assert names(required) == names(requirements('runtime'))
    assert {'onedl', 'openmmlab'} <= set(re.findall(r'extra == [\'"](\w+)', '\n'.join(metadata)))


def test_requirements__stacks_are_the_same_packages_under_two_names():
    onedl = {name.replace('onedl-', '') for name in names(requirements('onedl'))}
    assert onedl == names(requirements('openmmlab'))


def test_constraints__cover_the_working_set():
    pinned = names(requirements('constraints'))
    working_set = set().union(*(names(requirements(name)) for name in ('onedl', 'runtime', 'optional', 'tests')))
    assert working_set <= pinned


@pytest.mark.parametrize('name', ['sar_mm', 'tools', 'configs', 'docs'])
def test_sources__parse_as_python_3_8(name):
    """Syntax newer than Python 3.8 would keep upstream users out; ast can parse as that version."""
    import ast

    files = sorted((ROOT / name).rglob('*.py'))
    assert files
    for path in files:
        ast.parse(path.read_text(encoding='utf-8'), filename=str(path), feature_version=(3, 8))
