import math
from typing import List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_integer


class AnchorLinear(nn.Module):
    """``nn.Linear`` under another name and without its ancestry.

    OpenMMLab's ``init_cfg`` finds layers by their class or its base; some heads would set an ``nn.Linear`` of the
    projector to zero, and drawing its weights would shift the random numbers of the layers after it.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # as nn.Linear

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device='cpu').uniform_(-bound, bound, generator=generator))

        self.weight = draw(out_features, in_features)
        if bias:
            self.bias = draw(out_features)
        else:
            self.register_parameter('bias', None)

    def forward(self, x: Tensor) -> Tensor:
        # Predefined anchors stay float32 where the model is of another dtype.
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class AnchorNorm(nn.InstanceNorm1d):
    """Batch normalisation over the K anchors, always with the statistics of this very batch.

    As an instance normalisation by its class it keeps no running statistics, counts as a norm for ``norm_decay_mult``,
    and is left alone by ``sync_bn``: all processes hold the same anchors.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, device='cpu')

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)  # float32 of what a linear layer made under autocast
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


class AnchorProjector(nn.Sequential):
    """The projector g that embeds predefined anchors, (K, D) -> (K, C), among the features.

    Linear-BN-ReLU, Linear-BN-ReLU, Linear(no bias)-BN-ReLU. Its weights come from a seed and leave the global random
    state as it was. The first two layers start as ``nn.Linear`` does, the last one as the authors' ConvModule: normal,
    with a standard deviation of sqrt(2 / C).

    Args:
        dim: D, the anchor dimension.
        out_channels: C, the feature channels.
        seed: Seed of the weights.
        channels: Of the two hidden layers. None: C, as published: C D + 2 C^2 weights.

    Raises:
        ValueError: ``channels`` below 1.
    """

    def __init__(self, dim: int, out_channels: int, seed: int, channels: Optional[int] = None) -> None:
        if channels is None:
            channels = out_channels
        check_integer('projector.channels', channels, minimum=1)
        generator = torch.Generator(device='cpu').manual_seed(seed)
        layers: List[nn.Module] = []
        for sizes, bias in (((dim, channels), True), ((channels, channels), True), ((channels, out_channels), False)):
            linear = AnchorLinear(*sizes, bias, generator)
            layers += [linear, AnchorNorm(sizes[1]), nn.ReLU(inplace=True)]
        super().__init__(*layers)
        with torch.no_grad():
            linear.weight.normal_(0, math.sqrt(2 / out_channels), generator=generator)
