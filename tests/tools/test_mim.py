"""Installed as a wheel and in editable mode: the stack that was there, `sar_mm::`, and OpenMMLab's package manager."""

import json
import os
import shutil
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest

for needed in ('pip', 'setuptools'):
    if find_spec(needed) is None:
        pytest.skip(f'{needed} is not installed', allow_module_level=True)

ROOT = Path(__file__).parents[2]
PARTS = ('sar_mm', 'configs', 'tools', 'requirements', 'setup.py', 'pyproject.toml', 'README.md', 'model-index.yml')
CLASSIFICATION = 'sar_resnet18_1xb64-300iter_digits-lt.py'
SEGMENTATION = 'sar_fcn_unet_1xb16-400iter_digit-scenes-64x64.py'
ONE_STEP = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1']
EDITABLE = pytest.param('editable', marks=pytest.mark.slow)  # what `make install` makes, where all other tests run
KINDS = ['clone', 'wheel', EDITABLE]


class Environment:
    """A virtual environment that sees the packages of this one, but not its sar_mm."""

    def __init__(self, folder, kind):
        self.kind, self.folder, self.source = kind, folder / 'work', folder / 'source'
        self.folder.mkdir()
        self.source.mkdir()
        for name in PARTS:
            if (ROOT / name).is_dir():
                caches = shutil.ignore_patterns('__pycache__')
                shutil.copytree(ROOT / name, self.source / name, symlinks=True, ignore=caches)
            else:
                shutil.copy(ROOT / name, self.source)
        venv.create(folder / 'environment')
        self.python = folder / 'environment' / 'bin' / 'python'
        (packages,) = self.python.parents[1].glob('lib/python*/site-packages')
        packages.joinpath('host.pth').write_text('\n'.join(path for path in sys.path if path.endswith('-packages')))
        clone = [str(self.source)] if kind == 'clone' else []
        self.variables = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', PYTHONPATH=''.join(clone))
        self.package = packages / 'sar_mm' if kind == 'wheel' else self.source / 'sar_mm'
        self.tools = self.package / '.mim' / 'tools' if kind == 'wheel' else self.source / 'tools'

    def run(self, *command):
        result = subprocess.run(
            [str(self.python), *map(str, command)],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,  # mim asks before it installs anything
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stdout[-3000:]
        return result.stdout

    def packages(self):
        listed = 'import importlib.metadata as m; print(sorted({(d.name, d.version) for d in m.distributions()}))'
        return self.run('-c', listed.replace('d.name', 'd.metadata["Name"].replace("-", "_")')).splitlines()[-1]

    def install(self):
        """Install with pip, without a network: anything that is missing or to be replaced fails."""
        target = ['--editable', self.source] if self.kind == 'editable' else [self.source]
        options = ['--no-index', '--no-build-isolation', '--disable-pip-version-check', '--quiet']
        self.run('-m', 'pip', 'install', *options, '--report', 'report.json', *target)
        return [item['metadata']['name'] for item in json.loads((self.folder / 'report.json').read_text())['install']]


@pytest.fixture(scope='module')
def environments(tmp_path_factory):
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = environment = Environment(tmp_path_factory.mktemp(kind), kind)
            environment.before = environment.packages()
            environment.installed = [] if kind == 'clone' else environment.install()
        return made[kind]

    return make


@pytest.fixture(scope='module')
def with_digits(environments):
    def make(kind):
        environment = environments(kind)
        if not (environment.folder / 'data').exists():
            environment.run(environment.tools / 'dataset_converters' / 'digits.py')
        return environment

    return make


# ----- pip


@pytest.mark.parametrize('kind', ['wheel', EDITABLE])
def test_install__leaves_the_stack_that_is_there(environments, kind):
    environment = environments(kind)
    assert [name.replace('-', '_') for name in environment.installed] == ['sar_mm']
    others = set(eval(environment.packages())) ^ set(eval(environment.before))
    assert {name for name, _ in others} <= {'sar_mm'}


# ----- sar_mm:: as a base


@pytest.mark.parametrize('kind', KINDS)
def test_base__of_this_package(environments, kind):
    """mmengine finds the configs of the sar_mm that is imported."""
    environment = environments(kind)
    script = (
        'import sar_mm\n'
        'from mmengine.config import Config\n'
        'sar_mm.allow_bases()\n'
        f'path, scope = Config._get_cfg_path("sar_mm::quickstart/{CLASSIFICATION}", "")\n'
        'print(sar_mm.__file__, path, scope, Config.fromfile(path).model.head.type)\n'
    )
    module, path, scope, head = environment.run('-c', script).splitlines()[-1].split()
    assert Path(module).parent == environment.package
    assert path == str(environment.package / '.mim' / 'configs' / 'quickstart' / CLASSIFICATION)
    assert (scope, head) == ('None', 'SARLinearClsHead')  # a scope would hide the toolbox's names


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_base__of_a_config_that_is_trained(with_digits, kind, name):
    environment = with_digits(kind)
    config = environment.folder / f'my_{name}'
    config.write_text(f"_base_ = 'sar_mm::quickstart/{name}'\n")
    environment.run(environment.tools / 'train.py', config, '--work-dir', config.stem, '--cfg-options', *ONE_STEP)
    assert (environment.folder / config.stem / 'iter_1.pth').is_file()


# ----- mim


def need_mim(kind):
    if find_spec('mim') is None:
        pytest.skip('mim is not installed; docs/installation.md says how')
    if find_spec('pkg_resources') is None and version_of('openmim'):
        pytest.skip('openmim needs pkg_resources, which "setuptools<81" has')
    if kind == 'wheel' and version_of('onedl-mim'):
        pytest.skip('onedl-mim takes the first folder that an installation lists: of a wheel, that of the metadata')


def version_of(distribution):
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['wheel', 'editable'])
def test_mim__trains_and_tests(with_digits, kind):
    need_mim(kind)
    environment = with_digits(kind)
    # onedl-mim searches a whole clone for a bare name.
    is_found_by_name = not version_of('onedl-mim')
    config = CLASSIFICATION if is_found_by_name else environment.source / 'configs' / 'quickstart' / CLASSIFICATION
    log = environment.run('-m', 'mim', 'train', 'sar_mm', config, '--work-dir', 'mim', '--cfg-options', *ONE_STEP)
    assert 'Training finished successfully' in log
    checkpoint = environment.folder / 'mim' / 'iter_1.pth'
    log = environment.run('-m', 'mim', 'test', 'sar_mm', config, '--checkpoint', checkpoint, '--work-dir', 'mim_test')
    assert 'accuracy/top1: ' in log and 'Testing finished successfully' in log


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['wheel', 'editable'])
def test_mim__trains_in_two_processes(with_digits, kind):
    need_mim(kind)
    environment = with_digits(kind)
    config = environment.package / '.mim' / 'configs' / 'quickstart' / SEGMENTATION
    launch = ['--launcher', 'pytorch', '--gpus', '2', '--work-dir', 'mim_2', '--cfg-options', *ONE_STEP]
    log = environment.run('-m', 'mim', 'train', 'sar_mm', config, *launch)
    assert 'Training finished successfully' in log
    assert (environment.folder / 'mim_2' / 'iter_1.pth').is_file()
