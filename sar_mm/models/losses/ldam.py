from torch import Tensor

from ...checks import check_weight
from ...registry import MODELS
from .counted import ClassCountLoss


@MODELS.register_module()
class LDAMLoss(ClassCountLoss):
    """Label-distribution-aware margins: the logit of the own class less ``scale * max_margin * (min n / n_k)^(1/4)``.

    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019, eq. 13. It is
    meant for cosine logits times ``scale``, which ``NormedLinearClsHead`` gives; with the logits of a usual head, take
    ``scale=1``. Of soft targets, each class gets its share of the margin.

    Args:
        max_margin: Margin of the rarest class, in cosines.
        scale: Scale of the logits, the head's own.
        kwargs: See :class:`ClassCountLoss`.

    Example::

        head=dict(type='SARNormedLinearClsHead', scale=30.0, loss=dict(type='LDAMLoss', scale=30.0))
        custom_hooks=[dict(type='ClassCountsHook'), dict(type='DeferredReweightingHook', begin=160)]
    """

    def __init__(self, max_margin: float = 0.5, scale: float = 30.0, **kwargs) -> None:
        super().__init__(**kwargs)
        check_weight('max_margin', max_margin)
        check_weight('scale', scale)
        self.max_margin = max_margin
        self.scale = scale

    def adjust(self, score: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        margins = self.scale * self.max_margin * (counts.min() / counts) ** 0.25
        if target.is_floating_point():
            return score - target.float() * margins
        known = (target >= 0) & (target < len(counts))
        own = (target * known)[:, None]
        return score.scatter_add(1, own, (-margins[own] * known[:, None]).to(score.dtype))
