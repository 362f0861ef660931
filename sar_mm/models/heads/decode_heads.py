"""SAR versions of mmseg's decode heads."""

from typing import Dict, List

import torch
from mmseg.models.decode_heads import (
    ANNHead,
    APCHead,
    ASPPHead,
    CCHead,
    DAHead,
    DDRHead,
    DepthwiseSeparableASPPHead,
    DepthwiseSeparableFCNHead,
    DMHead,
    DNLHead,
    DPTHead,
    EMAHead,
    EncHead,
    FCNHead,
    FPNHead,
    GCHead,
    ISAHead,
    LightHamHead,
    LRASPPHead,
    NLHead,
    OCRHead,
    PIDHead,
    PSAHead,
    PSPHead,
    SegformerHead,
    SETRMLAHead,
    SETRUPHead,
    UPerHead,
)
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from .adapter import HeadAdapter, adapts, register_sar_heads


@adapts(BaseDecodeHead)
class DecodeHeadAdapter(HeadAdapter):
    """Heads that classify with ``conv_seg`` in ``cls_seg``, once in the forward pass."""

    classifier = 'conv_seg'

    def anchor_defaults(self) -> dict:
        # A binary head has one output for two classes.
        num_classes = 2 if self.out_channels == 1 else self.num_classes
        return dict(
            type='SemanticAnchorHead',
            num_classes=num_classes,
            channels=self.classifier_layer.in_channels,
            ignore_index=self.ignore_index,
        )

    def classify(self, anchors: Tensor) -> Tensor:
        logits = self.classifier_layer(anchors[:, :, None, None]).flatten(1)
        if self.out_channels == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits

    def cls_seg(self, feat: Tensor) -> Tensor:
        self.record(feat)
        return super().cls_seg(feat)

    def loss(self, *args, **kwargs) -> Dict[str, Tensor]:
        with self.recording():
            return super().loss(*args, **kwargs)

    def loss_by_feat(self, seg_logits, batch_data_samples: List) -> Dict[str, Tensor]:
        losses = super().loss_by_feat(seg_logits, batch_data_samples)
        target = torch.cat([sample.gt_sem_seg.data for sample in batch_data_samples])
        losses.update(self.anchor_losses(target))
        return losses


__all__ = register_sar_heads(
    (
        ANNHead,
        APCHead,
        ASPPHead,
        CCHead,
        DAHead,
        DDRHead,
        DepthwiseSeparableASPPHead,
        DepthwiseSeparableFCNHead,
        DMHead,
        DNLHead,
        DPTHead,
        EMAHead,
        EncHead,
        FCNHead,
        FPNHead,
        GCHead,
        ISAHead,
        LightHamHead,
        LRASPPHead,
        NLHead,
        OCRHead,
        PIDHead,
        PSAHead,
        PSPHead,
        SegformerHead,
        SETRMLAHead,
        SETRUPHead,
        UPerHead,
    ),
    globals(),
)
