from typing import List, Optional, Sequence, Tuple, Union

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...checks import check, check_integer
from ...registry import MODELS

NUM_STAGES = 3


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A of He et al.)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # An added channel is zero in the shortcut; half of them come in front, as in the usual PyTorch versions.
        added = channels - in_channels
        self.padding = (0, 0, 0, 0, added // 2, added - added // 2)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def shortcut(self, x: Tensor) -> Tensor:
        return x if self.stride == 1 else F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


@MODELS.register_module()
class CIFARResNet(BaseModule):
    """ResNet-20, -32, -44, -56 or -110 for images of about 32x32 pixels; 0.46 M parameters at depth 32.

    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2: a 3x3 stem and three stages of
    (depth - 2) / 6 basic blocks with 16, 32 and 64 channels at full, half and quarter resolution. mmpretrain's
    ``ResNet_CIFAR`` is another network: four stages of an ImageNet ResNet, 64 to 512 channels.

    Args:
        depth: Number of layers with weights, the classifier included: 8, 14, 20, ..., 6n + 2.
        in_channels: Channels of the images.
        base_channels: Channels of the stem and of the first stage.
        out_indices: Stages whose feature maps are returned, of 0, 1 and 2, in this order.
        frozen_stages: -1 freezes nothing, 0 the stem, i the stem and the first i stages: no gradients, and batch
            normalisation in evaluation mode.
        norm_eval: Keep all batch normalisation in evaluation mode.
        init_cfg: Initialisation of the weights, mmengine's. The default is that of Cao et al. (NeurIPS 2019) and of
            many long-tailed papers since: Kaiming with ``fan_in``, which they take for the classifier, too; a head
            needs the ``init_cfg`` of the example for that.

    Raises:
        ValueError: An argument that is not as above.

    Example::

        model = dict(
            type='ImageClassifier',
            backbone=dict(type='CIFARResNet', depth=32),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='SARLinearClsHead',
                num_classes=10,
                in_channels=64,
                init_cfg=dict(type='Kaiming', layer='Linear', mode='fan_in')))
    """

    def __init__(
        self,
        depth: int = 32,
        in_channels: int = 3,
        base_channels: int = 16,
        out_indices: Sequence[int] = (NUM_STAGES - 1,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: Optional[Union[dict, List[dict]]] = [
            dict(type='Kaiming', layer='Conv2d', mode='fan_in'),
            dict(type='Constant', val=1, layer='BatchNorm2d'),
        ],
    ) -> None:
        super().__init__(init_cfg)
        check_integer('depth', depth, minimum=8)
        check(depth % 6 == 2, 'depth', depth, '6n + 2, as 20, 32, 44, 56 and 110')
        check_integer('in_channels', in_channels, minimum=1)
        check_integer('base_channels', base_channels, minimum=1)
        is_stages = isinstance(out_indices, (list, tuple)) and set(out_indices) <= set(range(NUM_STAGES))
        check(is_stages and len(out_indices) > 0, 'out_indices', out_indices, 'a sequence of stages 0, 1 and 2')
        check(frozen_stages in range(-1, NUM_STAGES + 1), 'frozen_stages', frozen_stages, '-1, 0, 1, 2 or 3')
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, base_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(base_channels),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.ModuleList()
        num_blocks = (depth - 2) // 6
        for stage in range(NUM_STAGES):
            channels = base_channels * 2**stage
            first = BasicBlock(channels if stage == 0 else channels // 2, channels, stride=1 if stage == 0 else 2)
            rest = [BasicBlock(channels, channels, stride=1) for _ in range(num_blocks - 1)]
            self.stages.append(nn.Sequential(first, *rest))
        self._freeze()

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Return the feature maps of ``out_indices`` for images (N, in_channels, H, W)."""
        x = self.stem(x)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return tuple(outputs[index] for index in self.out_indices)

    def train(self, mode: bool = True) -> 'CIFARResNet':
        super().train(mode)
        self._freeze()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        for part in [self.stem, *self.stages][: self.frozen_stages + 1]:
            part.eval()
            part.requires_grad_(False)
