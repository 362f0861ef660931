import torch
from torch import Tensor

from ..checks import check_beta, check_class_counts


def effective_number_weights(counts: Tensor, beta: float) -> Tensor:
    """Weights of the classes by their effective number of samples, ``(1 - beta) / (1 - beta^n_k)``, which sum to K.

    Cui et al., CVPR 2019, eq. 2.

    Args:
        counts: n, (K,), samples and not shares; a class without samples counts as one.
        beta: In [0, 1).

    Returns:
        (K,), of the dtype of the counts if that is floating, else float32.

    Raises:
        ValueError: ``beta`` outside [0, 1), or counts that are negative, not finite, all 0, or shares below 1.
    """
    check_beta(beta)
    check_class_counts('counts', counts)
    # beta^n is near 1 for rare classes: expm1 keeps the digits of 1 - beta^n.
    log_beta = torch.log(torch.tensor(max(beta, 1e-300), dtype=torch.float64))
    weights = 1 / -torch.expm1(counts.double().clamp(min=1) * log_beta)
    weights = weights * len(counts) / weights.sum()
    return weights.to(counts.dtype if counts.is_floating_point() else torch.float32)
