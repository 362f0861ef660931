"""Either toolbox may be missing, and one that is there but broken should not take the other one down."""

import warnings
from importlib import import_module
from importlib.util import find_spec


def import_with(toolbox: str, module: str) -> None:
    """Import ``module`` where ``toolbox`` is installed; warn where it is but cannot be imported."""
    if find_spec(toolbox) is None:
        return
    try:
        import_module(module)
    except (ImportError, RuntimeError, AssertionError) as error:  # AssertionError: a version the toolbox refuses
        warnings.warn(f'{module} is left out because {toolbox} cannot be imported: {error}', stacklevel=2)
