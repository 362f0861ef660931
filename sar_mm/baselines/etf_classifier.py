from typing import Optional

import torch.nn.functional as F
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from ..anchors import SimplexETFAnchors
from ..checks import check_seed, check_weight
from ..registry import MODELS


class ETFClassifier(nn.Module):
    """Cosines between features and the fixed vertices of a simplex, (N, C) -> (N, K)."""

    weight: Tensor

    def __init__(self, in_features: int, out_features: int, seed: int) -> None:
        super().__init__()
        self.register_buffer('weight', F.normalize(SimplexETFAnchors(seed=seed)(out_features, in_features), dim=1))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(F.normalize(input, dim=1), self.weight.to(input.dtype))


@MODELS.register_module()
class DotRegressionLoss(nn.Module):
    """Dot-regression loss of a fixed classifier: ``1/2 * (w_y . f - 1)^2`` of unit vectors, averaged over the batch.

    Yang et al., "Inducing Neural Collapse in Imbalanced Learning: Do We Really Need a Learnable Classifier at the End
    of Deep Neural Network?", NeurIPS 2022, eq. 8, with E_W = E_H = 1.

    Args:
        loss_weight: Weight of the loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_weight('loss_weight', loss_weight)
        self.loss_weight = loss_weight

    def forward(
        self,
        score: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        **kwargs,
    ) -> Tensor:
        """Return the loss, a scalar, of cosines (N, K) and class indices (N,)."""
        cost = (score.float().gather(1, target[:, None])[:, 0] - 1).square() / 2
        if weight is not None:
            cost = cost * weight
        return self.loss_weight * cost.sum() / (len(cost) if avg_factor is None else avg_factor)


@MODELS.register_module()
class ETFClsHead(LinearClsHead):
    """LinearClsHead whose classifier is a fixed simplex equiangular tight frame, with the dot-regression loss.

    Yang et al., NeurIPS 2022; see :class:`DotRegressionLoss`. The scores are cosines.

    Args:
        num_classes: K, at most C + 1.
        in_channels: C, the channels of the features.
        seed: Seed of the frame's rotation.
        kwargs: Further arguments of LinearClsHead.

    Example::

        head=dict(type='ETFClsHead', num_classes=10, in_channels=64)
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        seed: int = 0,
        loss: dict = dict(type='DotRegressionLoss'),
        init_cfg=None,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, in_channels, loss=loss, init_cfg=init_cfg, **kwargs)
        check_seed(seed)
        self.fc = ETFClassifier(in_channels, num_classes, seed)
