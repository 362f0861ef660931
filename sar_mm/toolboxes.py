"""Either toolbox may be missing, and one that is there but broken should not take the other one down."""

import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Optional, Tuple

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE


def import_with(toolbox: str, module: str) -> None:
    """Import ``module`` where ``toolbox`` is installed; warn where it is but cannot be imported."""
    if find_spec(toolbox) is None:
        return
    try:
        import_module(module)
    except Exception as error:  # a version that the toolbox refuses, or anything that importing it runs into
        reason = f'{type(error).__name__}: {error}'
        warnings.warn(f'{module} is left out because {toolbox} cannot be imported: {reason}', stacklevel=2)


_find_base = Config._get_cfg_path


def allow_bases() -> None:
    """Let configs have a ``_base_`` of ``'mmseg::...'`` or ``'sar_mm::...'``, however these are installed.

    Before the first config is read: the tools of this package do it, and scripts call it before ``Config.fromfile``.
    """
    # mmengine looks for a distribution of this name, or else for a module; there are several distributions of mmseg.
    MODULE2PACKAGE['mmseg'] = 'mmseg'
    # A module of the folder that is looked for: of an editable distribution, upstream's mmengine does not find it.
    MODULE2PACKAGE['sar_mm'] = 'sar_mm.version'
    Config._get_cfg_path = staticmethod(_find_base_without_own_scope)


def _find_base_without_own_scope(cfg_path: str, filename: str) -> Tuple[str, Optional[str]]:
    # A scope would be where all names of the base are looked up: those in ours are the toolbox's.
    path, scope = _find_base(cfg_path, filename)
    return path, None if scope == 'sar_mm' else scope
