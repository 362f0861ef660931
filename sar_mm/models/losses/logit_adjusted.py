from torch import Tensor

from ...checks import check_weight
from ...registry import MODELS
from .counted import ClassCountLoss


@MODELS.register_module()
class LogitAdjustedLoss(ClassCountLoss):
    """Cross-entropy of ``z_k + tau * log(n_k / sum n)``: logit adjustment; with ``tau=1`` balanced softmax.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, eq. 10; Ren et al., "Balanced Meta-Softmax for
    Long-Tailed Visual Recognition", NeurIPS 2020. At inference the logits are taken as they are.

    Args:
        tau: Strength of the adjustment, at least 0.
        kwargs: See :class:`ClassCountLoss`.

    Example::

        head=dict(type='SARLinearClsHead', loss=dict(type='LogitAdjustedLoss'))
        custom_hooks=[dict(type='ClassCountsHook')]
    """

    def __init__(self, tau: float = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        check_weight('tau', tau)
        self.tau = tau

    def adjust(self, score: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        return adjust_logits(score, counts, self.tau)


def adjust_logits(score: Tensor, counts: Tensor, tau: float) -> Tensor:
    """Return ``z_k + tau * log(n_k / sum n)`` of logits (N, K, ...) and the counts n, (K,)."""
    adjustment = tau * (counts / counts.sum()).log()
    return score + adjustment.view(-1, *[1] * (score.dim() - 2))
