import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AnchorLinear(nn.Module):
    """``nn.Linear`` under another name and without its ancestry.

    OpenMMLab's ``init_cfg`` finds layers by their class or its base; some heads would set an ``nn.Linear`` of the
    projector to zero, and drawing its weights would shift the random numbers of the layers after it.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device='cpu').uniform_(-bound, bound))
        if bias:
            self.bias = nn.Parameter(torch.empty(out_features, device='cpu').uniform_(-bound, bound))
        else:
            self.register_parameter('bias', None)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class AnchorNorm(nn.InstanceNorm1d):
    """Batch normalisation over the K anchors, always with the statistics of this very batch.

    As an instance normalisation by its class it keeps no running statistics, counts as a norm for ``norm_decay_mult``,
    and is left alone by ``sync_bn``: all processes hold the same anchors.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, device='cpu')

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


class AnchorProjector(nn.Sequential):
    """The projector g that embeds predefined anchors, (K, D) -> (K, C), among the features.

    Linear-BN-ReLU, Linear-BN-ReLU, Linear(no bias)-BN-ReLU. Its weights come from a seed and leave the global random
    state as it was.

    Args:
        dim: D, the anchor dimension.
        channels: C, the feature channels.
        seed: Seed of the weights.
    """

    def __init__(self, dim: int, channels: int, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed(), which would reseed the accelerators as well.
            torch.random.default_generator.manual_seed(seed)
            layers = []
            for in_features, bias in ((dim, True), (channels, True), (channels, False)):
                layers += [AnchorLinear(in_features, channels, bias), AnchorNorm(channels), nn.ReLU(inplace=True)]
        super().__init__(*layers)
