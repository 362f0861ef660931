"""Semantic anchor regularization (SAR) for MMSegmentation and MMPretrain."""

try:
    import mmengine  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != 'mmengine':
        raise
    raise ModuleNotFoundError(
        'sar_mm needs an OpenMMLab stack: run '
        '`pip install torchvision onedl-mmengine onedl-mmcv onedl-mmsegmentation onedl-mmpretrain` '
        'for the maintained OneDL builds, or '
        '`pip install openmim && mim install mmengine "mmcv<2.2" mmsegmentation mmpretrain` for the upstream packages.',
        name='mmengine',
    ) from None

# Importing the modules registers them, which is what `custom_imports = dict(imports=['sar_mm'])` is for.
from . import anchors, baselines, datasets, evaluation, models  # noqa: F401
from .engine import data_parallel, hooks, loops, runner  # noqa: F401
from .toolboxes import allow_bases
from .version import __version__

__all__ = ['__version__', 'allow_bases']
