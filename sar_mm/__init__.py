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

from mmengine.config.utils import MODULE2PACKAGE

# Importing the modules registers them, which is what `custom_imports = dict(imports=['sar_mm'])` is for.
from . import anchors, datasets, evaluation, models  # noqa: F401
from .engine import hooks, loops  # noqa: F401
from .version import __version__

# mmengine asks for a distribution of this name before it reads a `_base_` of 'mmseg::...'; the module's own name is
# understood whichever distribution provides it.
MODULE2PACKAGE['mmseg'] = 'mmseg'

__all__ = ['__version__']
