from typing import List, Optional, Tuple, Union

from mmengine.model import BaseModule
from torch import Tensor, nn

from ...checks import check, check_integer, is_number
from ...registry import MODELS

STEM_CHANNELS = 16
STAGES = ((16, 1), (32, 2), (64, 2))  # channels at widen_factor 1, stride
SLOPE = 0.1
# TensorFlow's default, which the semi-supervised papers have; PyTorch's is 1e-5.
EPS = 1e-3


class PreActBlock(nn.Module):
    """Batch normalisation, activation and 3x3 convolution, twice, and a shortcut.

    The shortcut is a 1x1 convolution where the channels or the resolution change, of the block's input or, with
    ``activate_shortcut``, of its first activation.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        drop_rate: float,
        bn_momentum: float,
        activate_shortcut: bool,
    ) -> None:
        super().__init__()
        self.activate_shortcut = activate_shortcut
        self.bn1 = nn.BatchNorm2d(in_channels, eps=EPS, momentum=bn_momentum)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, eps=EPS, momentum=bn_momentum)
        self.drop = nn.Dropout(drop_rate)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.act = nn.LeakyReLU(SLOPE, inplace=True)
        self.shortcut: Optional[nn.Module] = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.act(self.bn1(x))
        out = self.conv2(self.drop(self.act(self.bn2(self.conv1(activated)))))
        if self.shortcut is not None:
            x = self.shortcut(activated if self.activate_shortcut else x)
        return out + x


@MODELS.register_module()
class WideResNet(BaseModule):
    """WRN-28-2 and others for images of about 32x32 pixels; 1.47 M parameters at depth 28, widen factor 2.

    Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016: a 3x3 stem of 16 channels and three stages of
    (depth - 4) / 6 pre-activation blocks with 16, 32 and 64 times ``widen_factor`` channels at full, half and quarter
    resolution. The details are those of semi-supervised papers (Oliver et al., NeurIPS 2018; FixMatch, NeurIPS 2020):
    leaky ReLU with slope 0.1, batch normalisation with eps 1e-3, and only the first stage's 1x1 shortcut takes the
    activated input.

    Args:
        depth: Number of layers with weights, the classifier included and the 1x1 shortcuts not: 10, 16, 22, 28, ...,
            6n + 4.
        widen_factor: Width of the stages, 1 being that of a ResNet for CIFAR.
        in_channels: Channels of the images.
        drop_rate: Dropout between the convolutions of a block, section 2.4 of the paper.
        bn_momentum: Weight of a batch in the running statistics; 0.001 is a decay of 0.999 in TensorFlow. The
            statistics take some 5 / ``bn_momentum`` steps to arrive: use 0.1 for a schedule shorter than that.
        init_cfg: Initialisation of the weights, mmengine's. The default is that of FixMatch's code: normal with a
            variance of 2 / ``fan_out``. Its classifier starts with Glorot's variance and no bias; a head needs the
            ``init_cfg`` of the example for that.

    Raises:
        ValueError: An argument that is not as above.

    Example::

        model = dict(
            type='ImageClassifier',
            backbone=dict(type='WideResNet', depth=28, widen_factor=2),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='SARLinearClsHead',
                num_classes=10,
                in_channels=128,
                init_cfg=dict(type='Xavier', layer='Linear', distribution='normal')))
    """

    def __init__(
        self,
        depth: int = 28,
        widen_factor: int = 2,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        bn_momentum: float = 0.001,
        init_cfg: Optional[Union[dict, List[dict]]] = [
            dict(type='Kaiming', layer='Conv2d', mode='fan_out'),
            dict(type='Constant', val=1, layer='BatchNorm2d'),
        ],
    ) -> None:
        super().__init__(init_cfg)
        check_integer('depth', depth, minimum=10)
        check(depth % 6 == 4, 'depth', depth, '6n + 4, as 10, 16, 22, 28 and 40')
        check_integer('widen_factor', widen_factor, minimum=1)
        check_integer('in_channels', in_channels, minimum=1)
        check(is_number(drop_rate) and 0 <= drop_rate < 1, 'drop_rate', drop_rate, 'a number in [0, 1)')
        is_weight = is_number(bn_momentum) and 0 < bn_momentum <= 1
        check(is_weight, 'bn_momentum', bn_momentum, 'a number in (0, 1]')

        self.stem = nn.Conv2d(in_channels, STEM_CHANNELS, 3, padding=1, bias=False)
        self.stages = nn.ModuleList()
        before = STEM_CHANNELS
        for stage, (base_channels, stride) in enumerate(STAGES):
            channels = base_channels * widen_factor
            common: dict = dict(drop_rate=drop_rate, bn_momentum=bn_momentum, activate_shortcut=stage == 0)
            first = PreActBlock(before, channels, stride, **common)
            rest = [PreActBlock(channels, channels, 1, **common) for _ in range((depth - 4) // 6 - 1)]
            self.stages.append(nn.Sequential(first, *rest))
            before = channels
        self.norm = nn.BatchNorm2d(before, eps=EPS, momentum=bn_momentum)
        self.act = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Return the last feature map (N, 64 * widen_factor, H / 4, W / 4) for images (N, in_channels, H, W).

        It is normalised and activated; a tuple of one, as necks and heads take it.
        """
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return (self.act(self.norm(x)),)
