"""SAR versions of mmseg's decode heads."""

from typing import Dict, List

import torch
from mmseg.models.decode_heads import IterativeDecodeHead, PointHead, point_head
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from ...checks import check, check_loss_of_one_output
from .adapter import HeadAdapter, classify_maps
from .factory import adapts, register_refusals, register_sar_heads


@adapts(BaseDecodeHead)
class DecodeHeadAdapter(HeadAdapter):
    """Heads that classify with ``conv_seg`` in ``cls_seg``, once in the forward pass."""

    classifier = 'conv_seg'
    feature = 'input of `cls_seg`'

    @property
    def anchor_ignore_index(self) -> int:
        return self.ignore_index

    def num_anchors(self, outputs: int) -> int:
        valid = f'None or num_classes={self.num_classes}'
        check(outputs > 1 or self.num_classes <= 2, 'out_channels', outputs, valid)
        if outputs == 1:
            for loss in self.loss_decode if isinstance(self.loss_decode, nn.ModuleList) else [self.loss_decode]:
                check_loss_of_one_output('loss_decode', loss)
        return 2 if outputs == 1 else outputs  # a binary head has one output for two classes

    def classify(self, anchors: Tensor) -> Tensor:
        logits = classify_maps(self.classifier_layer, anchors[:, :, None, None])
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits

    def cls_seg(self, feat: Tensor) -> Tensor:
        self.record(feat)
        return super().cls_seg(feat)

    def loss(self, *args, **kwargs) -> Dict[str, Tensor]:
        with self.recording():
            return super().loss(*args, **kwargs)

    def loss_by_feat(self, seg_logits, batch_data_samples: List) -> Dict[str, Tensor]:
        try:
            losses = super().loss_by_feat(seg_logits, batch_data_samples)
        except IndexError as error:
            self.explain_label(error, self.labels_of(batch_data_samples))
            raise
        return self.add_losses(losses, self.anchor_losses(self._features, self.labels_of(batch_data_samples)[:, 0]))

    def labels_of(self, batch_data_samples: List) -> Tensor:
        """Return the head's own view of the label maps, (N, 1, H, W)."""
        labels = self._stack_batch_gt(batch_data_samples)
        return labels[0] if isinstance(labels, tuple) else labels  # PIDHead has edges, too


@adapts(IterativeDecodeHead)
class IterativeDecodeHeadAdapter(DecodeHeadAdapter):
    """K-Net: the classifier is that of the head whose kernels the stages refine."""

    classifier = 'kernel_generate_head.conv_seg'
    feature = 'input of `kernel_generate_head.cls_seg`'

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        first = self.kernel_generate_head.dropout or self.classifier_layer
        first.register_forward_pre_hook(self.record_input)


@adapts(PointHead)
class PointHeadAdapter(DecodeHeadAdapter):
    """PointRend: features and labels of sampled points."""

    classifier = 'fc_seg'
    feature = 'input of `cls_seg` at the sampled points'

    def classify(self, anchors: Tensor) -> Tensor:
        return classify_maps(self.classifier_layer, anchors[:, :, None])

    def loss_by_feat(self, point_logits: Tensor, points: Tensor, batch_data_samples: List) -> Dict[str, Tensor]:
        try:
            losses = super(DecodeHeadAdapter, self).loss_by_feat(point_logits, points, batch_data_samples)
        except IndexError as error:
            self.explain_label(error, self.labels_of(batch_data_samples))
            raise
        labels = self.labels_of(batch_data_samples).float()
        labels = point_head.point_sample(labels, points, mode='nearest', align_corners=self.align_corners)
        return self.add_losses(losses, self.anchor_losses(self._features, labels[:, 0].long()))


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
