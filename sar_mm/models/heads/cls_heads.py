"""SAR versions of mmpretrain's classification heads."""

from typing import Dict, List

import torch
from mmpretrain.models.heads import LinearClsHead, VisionTransformerClsHead
from torch import Tensor

from .adapter import HeadAdapter, adapts, register_sar_heads


class ClsHeadAdapter(HeadAdapter):
    """Heads whose last layer is an ``nn.Linear`` that receives what ``pre_logits`` returns."""

    def anchor_defaults(self) -> dict:
        layer = self.classifier_layer
        return dict(
            type='SemanticAnchorHead',
            num_classes=layer.out_features,
            channels=layer.in_features,
            ignore_index=getattr(self.loss_module, 'ignore_index', None),
        )

    def classify(self, anchors: Tensor) -> Tensor:
        return self.classifier_layer(anchors)

    def pre_logits(self, feats) -> Tensor:
        feature = super().pre_logits(feats)
        self.record(feature)
        return feature

    def loss(self, feats, data_samples: List, **kwargs) -> Dict[str, Tensor]:
        with self.recording():
            losses = super().loss(feats, data_samples, **kwargs)
            losses.update(self.anchor_losses(self.anchor_target(data_samples)))
        return losses

    def anchor_target(self, data_samples: List) -> Tensor:
        """Return class probabilities (N, K) under batch augmentations such as mixup, else class indices (N,)."""
        if 'gt_score' in data_samples[0]:
            return torch.stack([sample.gt_score for sample in data_samples])
        return torch.cat([sample.gt_label for sample in data_samples])


@adapts(LinearClsHead)
class LinearClsHeadAdapter(ClsHeadAdapter):
    classifier = 'fc'


@adapts(VisionTransformerClsHead)
class VisionTransformerClsHeadAdapter(ClsHeadAdapter):
    classifier = 'layers.head'


__all__ = register_sar_heads((LinearClsHead, VisionTransformerClsHead), globals())
