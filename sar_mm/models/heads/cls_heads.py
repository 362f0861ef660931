"""SAR versions of mmpretrain's classification heads."""

from typing import Dict, List, Optional, Union

import torch
from mmpretrain.models.heads import (
    ArcFaceClsHead,
    ConformerHead,
    CSRAClsHead,
    DeiTClsHead,
    EfficientFormerClsHead,
    LeViTClsHead,
    LinearClsHead,
    MultiLabelLinearClsHead,
    MultiTaskHead,
    StackedLinearClsHead,
    VigClsHead,
    VisionTransformerClsHead,
)
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import label_to_onehot
from torch import Tensor, nn

from ...checks import check
from ...registry import MODELS
from ..feature_head import FeatureHead
from .adapter import HeadAdapter, Recorded
from .factory import RefusedHead, adapts, register_refusals, register_sar_heads, with_semantic_anchors
from .normed_linear import NormedLinearClsHead  # noqa: F401


class ClsHeadAdapter(HeadAdapter):
    """Heads whose feature is what the classifier layer, or a dropout in front of it, receives."""

    feature = 'input of the classifier'

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for layer in self.feature_layers():
            layer.register_forward_pre_hook(self.record_input)

    def feature_layers(self) -> List[nn.Module]:
        """Return the layers whose input is the feature."""
        return [self.classifier_layer]

    @property
    def anchor_ignore_index(self) -> Optional[int]:
        return getattr(self.loss_module, 'ignore_index', None)

    def classify(self, anchors: Tensor) -> Tensor:
        return self.classifier_layer(anchors)

    def loss(self, feats, data_samples: List, **kwargs) -> Dict[str, Tensor]:
        with self.recording(lambda: labels_of(data_samples)) as features:
            losses = super().loss(feats, data_samples, **kwargs)
        target, weight = self.anchor_target(data_samples), anchor_weight(data_samples)
        return self.add_losses(losses, self.anchor_losses(features, target, weight))

    def anchor_target(self, data_samples: List) -> Tensor:
        """Return the shares of the classes (N, K) where there are scores, as mixup makes them, else indices (N,)."""
        if 'gt_score' in data_samples[0]:
            return shares(torch.stack([sample.gt_score for sample in data_samples]))
        return labels_of(data_samples)


def labels_of(data_samples: List) -> Tensor:
    """Return the class indices of samples, (N,)."""
    return torch.cat([sample.gt_label for sample in data_samples])


def anchor_weight(data_samples: List) -> Optional[Tensor]:
    """Return the weights (N,) that samples have in the pull: their ``sample_weight``, else 1; None if all have 1."""
    weights = [sample.get('sample_weight') for sample in data_samples]
    given = [weight for weight in weights if weight is not None]
    return torch.stack([torch.ones_like(given[0]) if each is None else each for each in weights]) if given else None


def shares(score: Tensor) -> Tensor:
    """Return scores (N, K) as shares that sum to 1; those of an image without a class stay 0, and it is not pulled."""
    score = score.float().clamp(min=0)
    return score / score.sum(dim=1, keepdim=True).clamp(min=torch.finfo(score.dtype).tiny)


@adapts(LinearClsHead)
class LinearClsHeadAdapter(ClsHeadAdapter):
    classifier = 'fc'


@adapts(VisionTransformerClsHead)
class VisionTransformerClsHeadAdapter(ClsHeadAdapter):
    classifier = 'layers.head'


@adapts(StackedLinearClsHead)
class StackedLinearClsHeadAdapter(ClsHeadAdapter):
    classifier = 'layers[-1].fc'
    feature = 'input of the classifier, before the last dropout'

    @property
    def classifier_layer(self) -> nn.Module:
        return self.layers[-1].fc

    def feature_layers(self) -> List[nn.Module]:
        return [self.layers[-2].dropout or self.layers[-1]]


@adapts(VigClsHead)
class VigClsHeadAdapter(ClsHeadAdapter):
    classifier = 'fc2'
    feature = 'input of the dropout `drop` in front of the classifier'

    def feature_layers(self) -> List[nn.Module]:
        return [self.drop]


@adapts(ArcFaceClsHead)
class ArcFaceClsHeadAdapter(ClsHeadAdapter):
    """The anchors are classified as features are at inference: by the scaled cosine, without a margin."""

    classifier = 'norm_product'
    feature = 'input of the classifier, before its normalisation'

    def classify(self, anchors: Tensor) -> Tensor:
        return self.scale * self.classifier_layer(anchors)


@adapts(DeiTClsHead)
class DeiTClsHeadAdapter(ClsHeadAdapter):
    """Both tokens are pulled to the same anchors, which are classified as if they were both tokens."""

    classifier = 'layers.head, layers.head_dist'
    feature = 'inputs of the two classifiers, with anchors in common'

    @property
    def classifier_layer(self) -> nn.Module:
        return self.layers.head

    def feature_layers(self) -> List[nn.Module]:
        return [self.layers.head, self.layers.head_dist]

    def classify(self, anchors: Tensor) -> Tensor:
        return (self.layers.head(anchors) + self.layers.head_dist(anchors)) / 2

    def anchor_losses(
        self, features: List[Recorded], target: Tensor, weight: Optional[Tensor] = None
    ) -> Dict[str, Tensor]:
        tokens = self.check_features(features, [self.anchor_head] * 2)
        weight = None if weight is None else torch.cat([weight] * 2)
        return self.anchor_head.loss(torch.cat(tokens), torch.cat([target] * 2), self.classify, weight)


@adapts(ConformerHead)
class ConformerHeadAdapter(ClsHeadAdapter):
    """The convolutional and the transformer branch classify for themselves: each has its own anchors."""

    classifier = 'conv_cls_head, trans_cls_head'
    feature = 'inputs of the two classifiers, each with its own anchors'
    branches = ('conv', 'trans')

    def feature_layers(self) -> List[nn.Module]:
        return [self.conv_cls_head, self.trans_cls_head]

    def build_anchor_head(self, options: dict) -> nn.ModuleDict:
        anchor_heads = [self.build_anchors_of(layer, options) for layer in self.feature_layers()]
        return nn.ModuleDict(zip(self.branches, anchor_heads))

    def anchor_losses(
        self, features: List[Recorded], target: Tensor, weight: Optional[Tensor] = None
    ) -> Dict[str, Tensor]:
        anchor_heads = list(self.anchor_head.values())
        features = self.check_features(features, anchor_heads)
        losses = {}
        for branch, anchor_head, feature, layer in zip(self.branches, anchor_heads, features, self.feature_layers()):
            branch_losses = anchor_head.loss(feature, target, layer, weight)
            losses.update({f'{branch}_{name}': value for name, value in branch_losses.items()})
        return losses


class DistilledClsHeadAdapter(ClsHeadAdapter):
    """Heads whose distilled version, their default, mmpretrain has for inference only."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        distillation = getattr(self, 'distillation', False) or getattr(self, 'dist', False)
        check(not distillation, 'distillation', distillation, 'False, as mmpretrain cannot train with it')


@adapts(EfficientFormerClsHead)
class EfficientFormerClsHeadAdapter(DistilledClsHeadAdapter):
    classifier = 'head'


@adapts(LeViTClsHead)
class LeViTClsHeadAdapter(DistilledClsHeadAdapter):
    classifier = 'head.linear'
    feature = 'input of the classifier, after the batch normalisation `head.bn`'


class MultiLabelAdapter(ClsHeadAdapter):
    """Multi-label heads: an image is pulled to the mean of the anchors of its classes."""

    def anchor_target(self, data_samples: List) -> Tensor:
        if 'gt_score' in data_samples[0]:
            return super().anchor_target(data_samples)
        num_classes = self.anchor_head.num_classes
        return shares(torch.stack([label_to_onehot(sample.gt_label, num_classes) for sample in data_samples]))


@adapts(MultiLabelLinearClsHead)
class MultiLabelLinearClsHeadAdapter(MultiLabelAdapter):
    classifier = 'fc'


@adapts(CSRAClsHead)
class CSRAClsHeadAdapter(MultiLabelAdapter):
    """Residual attention: the mean over the positions is what its base logits classify."""

    classifier = 'csra_heads'
    feature = 'input of the classifier, averaged over the positions'

    @property
    def classifier_layer(self) -> nn.Module:
        return self.csra_heads[0].head

    def record_input(self, layer: nn.Module, inputs: tuple) -> None:
        self.record(inputs[0].mean((2, 3)))

    def classify(self, anchors: Tensor) -> Tensor:
        return sum(head(anchors[:, :, None, None]) for head in self.csra_heads)


@adapts(MultiTaskHead)
class MultiTaskHeadAdapter:
    """Every sub-head becomes its SAR version; ``anchor_head`` holds for all that have none of their own."""

    classifier = feature = 'those of the sub-heads'

    def __init__(self, task_heads: dict, **kwargs) -> None:
        super().__init__({task: self._with_anchors(head) for task, head in task_heads.items()}, **kwargs)

    @staticmethod
    def _with_anchors(head: Union[dict, nn.Module]) -> Union[dict, nn.Module]:
        is_built = isinstance(head, nn.Module)
        kind = type(head) if is_built else head['type']
        head_class = MMPRETRAIN_MODELS.get(kind) if isinstance(kind, str) else kind
        if head_class is None or issubclass(head_class, (HeadAdapter, MultiTaskHeadAdapter)):
            return head  # of an unknown type the registry complains
        if is_built:
            raise TypeError(f'SARMultiTaskHead takes configs of stock heads, or SAR heads, but got a {kind.__name__}')
        registered = MODELS.module_dict.get(f'SAR{head_class.__name__}')
        is_same = registered is not None and issubclass(registered, (head_class, RefusedHead))
        return {**head, 'type': registered if is_same else with_semantic_anchors(head_class)}

    def loss(self, feats, data_samples: List, **kwargs) -> Dict[str, Tensor]:
        losses = super().loss(feats, data_samples, **kwargs)
        for task, head in self.task_heads.items():
            # Without a sample of the task its head was not run; its anchors are, so that all keys and parameters are
            # there in every step.
            if isinstance(head, HeadAdapter) and not any(task in sample for sample in data_samples):
                parts = [module for module in head.anchor_head.modules() if isinstance(module, FeatureHead)]
                device = next(head.parameters()).device
                features = [(torch.zeros(0, part.channels, device=device), True) for part in parts]
                idle = head.anchor_losses(features, torch.zeros(0, dtype=torch.long, device=device))
                losses.update({f'{task}_{name}': value for name, value in idle.items()})
        return losses


_OWN = 'or pass a HeadAdapter if it is a head of your own derived from this one'
_REGRESSION = 'it regresses numbers and has no classes; keep it, and use the SAR versions of the heads that classify'
_PRETEXT = (
    'it learns a self-supervised pretext task and has no classes; '
    'use SAR when the model is fine-tuned, with SARLinearClsHead or SARVisionTransformerClsHead'
)
_LANGUAGE = (
    'it matches or generates text and has no classes; use SARLinearClsHead or SARVisionTransformerClsHead to classify'
)
register_refusals(
    dict(
        ClsHead=f'it has no classifier layer; use SARLinearClsHead, {_OWN}',
        MultiLabelClsHead=f'it has no classifier layer; use SARMultiLabelLinearClsHead, {_OWN}',
        RegressionHead=_REGRESSION,
        LinearRegressionHead=_REGRESSION,
        BEiTV1Head=_PRETEXT,
        BEiTV2Head=_PRETEXT,
        CAEHead=_PRETEXT,
        ContrastiveHead=_PRETEXT,
        LatentCrossCorrelationHead=_PRETEXT,
        LatentPredictHead=_PRETEXT,
        MAEPretrainHead=_PRETEXT,
        MIMHead=_PRETEXT,
        MixMIMPretrainHead=_PRETEXT,
        MoCoV3Head=_PRETEXT,
        SimMIMHead=_PRETEXT,
        SparKPretrainHead=_PRETEXT,
        SwAVHead=_PRETEXT,
        iTPNClipHead=_PRETEXT,
        GroundingHead=_LANGUAGE,
        ITCHead=_LANGUAGE,
        ITMHead=_LANGUAGE,
        SeqGenerationHead=_LANGUAGE,
        VQAGenerationHead=_LANGUAGE,
    ),
    MMPRETRAIN_MODELS,
)

__all__ = register_sar_heads(
    (
        'ArcFaceClsHead',
        'CSRAClsHead',
        'ConformerHead',
        'DeiTClsHead',
        'EfficientFormerClsHead',
        'LeViTClsHead',
        'LinearClsHead',
        'MultiLabelLinearClsHead',
        'MultiTaskHead',
        'StackedLinearClsHead',
        'VigClsHead',
        'VisionTransformerClsHead',
    ),
    MMPRETRAIN_MODELS,
    globals(),
)
__all__ += register_sar_heads(('NormedLinearClsHead',), MODELS, globals())
