from typing import Dict, Sequence

from torch import Tensor


def group_means(values: Tensor, is_high: Tensor, is_low: Tensor, names: Sequence[str]) -> Dict[str, float]:
    """Return the mean of per-class values over the frequent classes, those in between, and the rare ones.

    Args:
        values: (K,), NaN for a class that is left out.
        is_high: (K,), the frequent classes.
        is_low: (K,), the rare classes.
        names: Names of the three groups; a group without classes is left out.
    """
    groups = zip(names, (is_high, ~is_high & ~is_low, is_low))
    members = {name: values[group & ~values.isnan()] for name, group in groups}
    return {name: group.mean().item() for name, group in members.items() if len(group)}
