"""SAR versions of mmseg's decode heads."""

from typing import Dict, List

import torch
from mmseg.models.decode_heads import IterativeDecodeHead, PointHead, point_head
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor

from ...checks import check, check_loss_of_one_output
from ..module_lists import as_modules
from .factory import register_mixin, register_refusals, register_sar_heads
from .mixin import SARHeadMixin


class SARDecodeHeadMixin(SARHeadMixin):
    """Decode heads: their loss is a forward pass, in which features are recorded, and ``loss_by_feat``."""

    @property
    def anchor_ignore_index(self) -> int:
        return self.ignore_index

    def num_anchors(self, outputs: int) -> int:
        valid = f'None or num_classes={self.num_classes}'
        check(outputs > 1 or self.num_classes <= 2, 'out_channels', outputs, valid)
        if outputs == 1:
            for loss in as_modules(self.loss_decode):
                check_loss_of_one_output('loss_decode', loss)
        return 2 if outputs == 1 else outputs  # a binary head has one output for two classes

    def classify(self, anchors: Tensor) -> Tensor:
        logits = super().classify(anchors)
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits

    def loss(self, *args, **kwargs) -> Dict[str, Tensor]:
        with self.recording():
            return super().loss(*args, **kwargs)

    def loss_by_feat(self, seg_logits, batch_data_samples: List) -> Dict[str, Tensor]:
        with self.explaining_labels(lambda: self.labels_of(batch_data_samples)):
            losses = super().loss_by_feat(seg_logits, batch_data_samples)
        return self.add_losses(losses, self.anchor_losses(self._recording, self.labels_of(batch_data_samples)[:, 0]))

    def labels_of(self, batch_data_samples: List) -> Tensor:
        """Return the head's own view of the label maps, (N, 1, H, W)."""
        labels = self._stack_batch_gt(batch_data_samples)
        return labels[0] if isinstance(labels, tuple) else labels  # PIDHead has edges, too


class SARPointHeadMixin(SARDecodeHeadMixin):
    """PointRend: features and labels of sampled points."""

    feature = 'input of the classifier at the sampled points, before its dropout'

    def loss_by_feat(self, point_logits: Tensor, points: Tensor, batch_data_samples: List) -> Dict[str, Tensor]:
        with self.explaining_labels(lambda: self.labels_of(batch_data_samples)):
            losses = super(SARDecodeHeadMixin, self).loss_by_feat(point_logits, points, batch_data_samples)
        labels = self.labels_of(batch_data_samples).float()
        labels = point_head.point_sample(labels, points, mode='nearest', align_corners=self.align_corners)
        return self.add_losses(losses, self.anchor_losses(self._recording, labels[:, 0].long()))


register_mixin(SARDecodeHeadMixin, {BaseDecodeHead: 'conv_seg', IterativeDecodeHead: 'kernel_generate_head.conv_seg'})
register_mixin(SARPointHeadMixin, {PointHead: 'fc_seg'})

_MASK_QUERIES = (
    'it classifies mask queries, not pixels, and has no classifier layer of pixel features; '
    'use SARUPerHead or SARFPNHead on the same backbone'
)
register_refusals(
    dict(
        KernelUpdateHead='it is a part of IterativeDecodeHead; use SARIterativeDecodeHead',
        KernelUpdator='it is a part of IterativeDecodeHead; use SARIterativeDecodeHead',
        Mask2FormerHead=_MASK_QUERIES,
        MaskFormerHead=_MASK_QUERIES,
        SegmenterMaskTransformerHead=(
            'its classes are tokens of a transformer, not rows of a classifier layer; '
            'use SARFCNHead or SARSETRUPHead on the same backbone'
        ),
        SideAdapterCLIPHead=(
            "it classifies mask proposals by CLIP's text embeddings and has no classifier layer of pixel features; "
            'use SARFCNHead or SARSETRUPHead on the same backbone'
        ),
        STDCHead=(
            'it learns boundaries that it makes from the labels, and these are no classes; '
            'keep it and use the SAR versions of the other heads of the model'
        ),
        VPDDepthHead='it regresses depth and has no classes; keep it, or use SARFCNHead to segment',
    ),
    MMSEG_MODELS,
)

__all__ = register_sar_heads(
    (
        'ANNHead',
        'APCHead',
        'ASPPHead',
        'CCHead',
        'DAHead',
        'DDRHead',
        'DepthwiseSeparableASPPHead',
        'DepthwiseSeparableFCNHead',
        'DMHead',
        'DNLHead',
        'DPTHead',
        'EMAHead',
        'EncHead',
        'FCNHead',
        'FPNHead',
        'GCHead',
        'ISAHead',
        'IterativeDecodeHead',
        'LightHamHead',
        'LRASPPHead',
        'NLHead',
        'OCRHead',
        'PIDHead',
        'PointHead',
        'PSAHead',
        'PSPHead',
        'SegformerHead',
        'SETRMLAHead',
        'SETRUPHead',
        'UPerHead',
    ),
    MMSEG_MODELS,
    globals(),
)
