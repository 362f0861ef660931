import math

import torch
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.models.heads.margin_head import NormProduct
from torch import Tensor

from ...checks import check, is_number
from ...registry import MODELS


class ScaledNormProduct(NormProduct):
    """Cosines between features and class weights, times ``scale``: (N, in_features) -> (N, out_features).

    The weights start as unit vectors, as published: the gradient of a normalised weight grows as it gets shorter.
    """

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features)
        self.scale = scale

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.uniform_(-1, 1)
            self.weight.div_(self.weight.norm(dim=1, keepdim=True))

    def forward(self, input: Tensor) -> Tensor:
        return self.scale * super().forward(input)


@MODELS.register_module()
class NormedLinearClsHead(LinearClsHead):
    """LinearClsHead whose scores are ``scale * cos(feature, class weight)``, without a bias; for LDAM, above all.

    Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019, which takes a
    scale of 30. The scores are scaled already: a margin ``m`` between cosines is ``scale * m`` between scores.

    Args:
        num_classes: K.
        in_channels: C, the channels of the features.
        scale: Factor of the cosines, above 0.
        init_cfg: Initialisation of the weights, mmengine's. None: random unit vectors.
        kwargs: Further arguments of LinearClsHead.

    Raises:
        ValueError: A scale that is not above 0.

    Example::

        head=dict(type='NormedLinearClsHead', num_classes=10, in_channels=64)
    """

    def __init__(self, num_classes: int, in_channels: int, scale: float = 30.0, init_cfg=None, **kwargs) -> None:
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        check(is_number(scale) and 0 < scale < math.inf, 'scale', scale, 'a finite number above 0')
        self.fc = ScaledNormProduct(in_channels, num_classes, scale)
