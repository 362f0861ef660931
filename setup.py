from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
# In `sar_mm/.mim`, for OpenMMLab's package manager and a `_base_` of 'sar_mm::...': links in a clone, files in a wheel.
MIM = [
    'model-index.yml',
    *(f'configs/**/*.{suffix}' for suffix in ('py', 'yml', 'md', 'npy')),
    *(f'tools/**/*.{suffix}' for suffix in ('py', 'sh')),
]


class EditableWheel(editable_wheel):
    """Names the package's folder in the metadata of an editable installation.

    openmim and mmengine look for a package beside its metadata, which is not where an editable one is; they join the
    first line of top_level.txt to that place, so it may be an absolute path.
    """

    def _ensure_dist_info(self) -> None:
        super()._ensure_dist_info()
        (Path(self.dist_info_dir) / 'top_level.txt').write_text(f'{ROOT / "sar_mm"}\nsar_mm\n')


def requirements(name: str) -> list:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


version = {}
exec((ROOT / 'sar_mm' / 'version.py').read_text(), version)

setup(
    name='sar_mm',
    version=version['__version__'],
    description='Semantic anchor regularization for MMSegmentation and MMPretrain models',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['sar_mm', 'sar_mm.*']),
    package_data={'sar_mm': ['py.typed', 'analysis/report/*.html', *(f'.mim/{files}' for files in MIM)]},
    cmdclass=dict(editable_wheel=EditableWheel),
    python_requires='>=3.8',
    # Neither OpenMMLab stack is required: installing the plugin must not replace the one that is there.
    install_requires=requirements('runtime'),
    extras_require={
        name: requirements(name) for name in ('onedl', 'openmmlab', 'optional', 'tensorboard', 'tests', 'text')
    },
    keywords='semantic segmentation, image classification, long-tailed learning, regularization, OpenMMLab',
)
