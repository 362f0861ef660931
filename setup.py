from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


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
    python_requires='>=3.8',
    # Neither OpenMMLab stack is required: installing the plugin must not replace the one that is there.
    install_requires=requirements('runtime'),
    extras_require={name: requirements(name) for name in ('onedl', 'openmmlab', 'optional', 'tests', 'text')},
    keywords='semantic segmentation, image classification, long-tailed learning, regularization, OpenMMLab',
)
