from typing import List, Optional

from torch import nn


def as_modules(value: Optional[nn.Module]) -> List[nn.Module]:
    """Return the modules of a ModuleList, or the module that stands in place of one; none for None."""
    if value is None:
        return []
    return list(value) if isinstance(value, nn.ModuleList) else [value]
