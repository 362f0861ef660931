import re
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
STACKS = re.compile(r'^(onedl-|mm|torchvision)')
# What may lie around in a clone.
STRAYS = {
    'tools/__pycache__/train.cpython-311.pyc',
    'sar_mm/__pycache__/version.cpython-311.pyc',
    'configs/quickstart/notes.txt',
    'data/digits/1.png',
    'work_dirs/run/config.py',
    'tests/test_packaging.py',
}


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
    # OneDL's mmsegmentation asks for what it imports, upstream's does not.
    assert names(requirements('openmmlab')) - {'ftfy', 'regex'} == onedl


def test_constraints__cover_the_working_set():
    pinned = names(requirements('constraints'))
    working_set = set().union(
        *(names(requirements(name)) for name in ('onedl', 'runtime', 'optional', 'tensorboard', 'tests'))
    )
    assert working_set <= pinned


@pytest.mark.parametrize(('repository', 'package'), [('ruff-pre-commit', 'ruff'), ('codespell', 'codespell')])
def test_pre_commit__has_the_versions_of_the_constraints(repository, package):
    (hook,) = re.findall(rf'/{repository}\n +rev: v(.*)', (ROOT / '.pre-commit-config.yaml').read_text())
    assert f'{package}=={hook}\n' in (ROOT / 'requirements' / 'constraints.txt').read_text()


@pytest.mark.parametrize('name', ['sar_mm', 'tools', 'configs', 'docs'])
def test_sources__parse_as_python_3_8(name):
    """Syntax newer than Python 3.8 would keep upstream users out; ast can parse as that version."""
    import ast

    files = sorted((ROOT / name).rglob('*.py'))
    assert files
    for path in files:
        ast.parse(path.read_text(encoding='utf-8'), filename=str(path), feature_version=(3, 8))


# ----- Wheels


def build(source, what, folder):
    """Build with the hooks that pip calls, which need neither pip nor a network; return the file."""
    folder.mkdir()
    hook = f'import sys; from setuptools import build_meta; build_meta.build_{what}(sys.argv[1])'
    command = [sys.executable, '-c', hook, str(folder)]
    result = subprocess.run(command, cwd=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
    (file,) = folder.iterdir()
    return file


def contents(wheel):
    """Names and checksums of the files in a wheel, without its metadata."""
    with ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist() if '.dist-info/' not in info.filename}


def files(folder):
    """What is below a folder, as names; caches excepted."""
    paths = folder.rglob('*') if folder.is_dir() else [folder]
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file() and '__pycache__' not in path.parts}


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy to build in."""
    if find_spec('setuptools') is None:
        pytest.skip('setuptools is not installed')
    folder = tmp_path_factory.mktemp('source')
    for name in ('sar_mm', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    listed = re.search(r'^include (.*)', (ROOT / 'MANIFEST.in').read_text(), re.M)[1].split()
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', *listed):
        shutil.copy(ROOT / name, folder)
    for stray in STRAYS:
        (folder / stray).parent.mkdir(parents=True, exist_ok=True)
        (folder / stray).write_text('stray')
    return folder


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    return build(source, 'wheel', tmp_path_factory.mktemp('built') / 'wheel')


def test_clone__has_links_to_what_a_wheel_holds():
    for name in ('configs', 'tools', 'model-index.yml'):
        link = ROOT / 'sar_mm' / '.mim' / name
        assert link.is_symlink() and link.samefile(ROOT / name)


def test_wheel__holds_package_configs_and_tools_only(wheel):
    below_mim = files(ROOT / 'configs') | files(ROOT / 'tools') | {'model-index.yml'}
    package = {name for name in files(ROOT / 'sar_mm') if not name.startswith('sar_mm/.mim/')}
    assert set(contents(wheel)) == package | {f'sar_mm/.mim/{name}' for name in below_mim}


def test_wheel__has_the_extras_of_the_requirements(wheel):
    with ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith('.dist-info/METADATA')]
        lines = archive.read(metadata).decode().splitlines()
    extras = {line.partition(': ')[2] for line in lines if line.startswith('Provides-Extra: ')}
    assert extras == {'onedl', 'openmmlab', 'optional', 'tensorboard', 'tests', 'text'}
    for extra in extras:
        required = [
            line.partition(': ')[2]
            for line in lines
            if line.startswith('Requires-Dist: ') and re.search(rf'extra == [\'"]{extra}[\'"]', line)
        ]
        assert names(required) == names(requirements(extra))


def test_sdist__builds_the_same_wheel(source, wheel, tmp_path):
    with tarfile.open(build(source, 'sdist', tmp_path / 'sdist')) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
        archive.extractall(tmp_path)
    assert {'README.md', 'LICENSE', 'requirements/onedl.txt', 'configs', 'tools/train.py'} <= names
    assert not names & STRAYS
    (unpacked,) = tmp_path.glob('sar_mm-*')
    assert contents(build(unpacked, 'wheel', tmp_path / 'wheel')) == contents(wheel)


def test_editable__metadata_lead_to_the_clone(source, tmp_path):
    """openmim joins the place of the metadata and their first top-level name to find the package."""
    with ZipFile(build(source, 'editable', tmp_path / 'editable')) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith('top_level.txt')]
        names = archive.read(metadata).decode().splitlines()
    assert names[1:] == ['sar_mm']
    assert Path('site-packages', names[0]).samefile(source / 'sar_mm')
    assert (source / 'sar_mm' / '.mim' / 'tools' / 'train.py').is_file()
