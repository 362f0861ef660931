"""SAR versions of mmpretrain's classification heads."""

from typing import Dict, List, Optional, Tuple, Union

import torch
from mmpretrain.models.heads import (
    ArcFaceClsHead,
    ClsHead,
    ConformerHead,
    CSRAClsHead,
    DeiTClsHead,
    EfficientFormerClsHead,
    LeViTClsHead,
    MultiLabelClsHead,
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
from .factory import RefusedHead, register_mixin, register_refusals, register_sar_heads, with_semantic_anchors
from .mixin import Recording, SARHeadMixin
from .normed_linear import NormedLinearClsHead  # noqa: F401


class SARClsHeadMixin(SARHeadMixin):
    """Heads that give one label to an image."""

    @property
    def anchor_ignore_index(self) -> Optional[int]:
        return getattr(self.loss_module, 'ignore_index', None)

    def loss(self, feats, data_samples: List, **kwargs) -> Dict[str, Tensor]:
        with self.recording() as recording:
            losses = self.task_losses(feats, data_samples, **kwargs)
        target, weight = self.anchor_target(data_samples), anchor_weight(data_samples)
        return self.add_losses(losses, self.anchor_losses(recording, target, weight))

    def task_losses(self, feats, data_samples: List, **kwargs) -> Dict[str, Tensor]:
        """Return the losses of the stock head."""
        # Not in one `with` statement with recording(): torch.compile would fail.
        with self.explaining_labels(lambda: labels_of(data_samples)):
            return super().loss(feats, data_samples, **kwargs)

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


class SARArcFaceClsHeadMixin(SARClsHeadMixin):
    """The anchors are classified as features are at inference: by the scaled cosine, without a margin."""

    feature = 'input of the classifier, before its normalisation'

    def classify(self, anchors: Tensor) -> Tensor:
        return self.scale * super().classify(anchors)


class SARDeiTClsHeadMixin(SARClsHeadMixin):
    """Both tokens are pulled to the same anchors, which are classified as if they were both tokens."""

    feature = 'inputs of the two classifiers, with anchors in common'

    def classify(self, anchors: Tensor) -> Tensor:
        return (self.layers.head(anchors) + self.layers.head_dist(anchors)) / 2


class SARConformerHeadMixin(SARClsHeadMixin):
    """The convolutional and the transformer branch classify for themselves: each has its own anchors."""

    feature = 'inputs of the two classifiers, each with its own anchors'
    classifier_layer = None
    branches = ('conv', 'trans')

    def build_anchor_head(self, options: dict) -> nn.ModuleDict:
        anchor_heads = [self.build_anchors_of(layer, options) for layer in self.classifier_layers]
        return nn.ModuleDict(dict(zip(self.branches, anchor_heads)))

    def anchor_losses(
        self, recording: Optional[Recording], target: Tensor, weight: Optional[Tensor] = None
    ) -> Dict[str, Tensor]:
        features = self.check_features(recording, [each.channels for each in self.anchor_head.values()])
        losses = {}
        for (branch, anchor_head), feature, layer in zip(self.anchor_head.items(), features, self.classifier_layers):
            branch_losses = anchor_head.loss(feature, target, layer, weight)
            losses.update({f'{branch}_{name}': value for name, value in branch_losses.items()})
        return losses


class SARDistilledClsHeadMixin(SARClsHeadMixin):
    """Heads whose distilled version, their default, mmpretrain has for inference only."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        distillation = getattr(self, 'distillation', False) or getattr(self, 'dist', False)
        check(not distillation, 'distillation', distillation, 'False, as mmpretrain cannot train with it')


class SARLeViTClsHeadMixin(SARDistilledClsHeadMixin):
    feature = 'input of the classifier, after the batch normalisation `head.bn`'


class SARMultiLabelHeadMixin(SARClsHeadMixin):
    """Multi-label heads: an image is pulled to the mean of the anchors of its classes."""

    def anchor_target(self, data_samples: List) -> Tensor:
        if 'gt_score' in data_samples[0]:
            return super().anchor_target(data_samples)
        num_classes = self.anchor_head.num_classes
        return shares(torch.stack([label_to_onehot(sample.gt_label, num_classes) for sample in data_samples]))


class SARCSRAClsHeadMixin(SARMultiLabelHeadMixin):
    """Residual attention: the mean over the positions is what its base logits classify, with all of ``csra_heads``."""

    feature = 'input of the classifiers `csra_heads`, averaged over the positions'

    def record_input(self, layer: nn.Module, inputs: Tuple[Tensor, ...]) -> None:
        self.record(inputs[0].mean((2, 3)))

    def classify(self, anchors: Tensor) -> Tensor:
        return sum(head(anchors[:, :, None, None]) for head in self.csra_heads)  # type: ignore[return-value]


class SARMultiTaskHeadMixin:
    """Every sub-head becomes its SAR version; ``anchor_head`` holds for all that have none of their own."""

    feature = 'those of the sub-heads'

    def __init__(self, task_heads: dict, **kwargs) -> None:
        super().__init__({task: self._with_anchors(head) for task, head in task_heads.items()}, **kwargs)

    @staticmethod
    def _with_anchors(head: Union[dict, nn.Module]) -> Union[dict, nn.Module]:
        is_built = isinstance(head, nn.Module)
        kind = type(head) if is_built else head['type']
        head_class = MMPRETRAIN_MODELS.get(kind) if isinstance(kind, str) else kind
        if head_class is None or issubclass(head_class, (SARHeadMixin, SARMultiTaskHeadMixin)):
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
            if isinstance(head, SARHeadMixin) and not any(task in sample for sample in data_samples):
                parts = [module for module in head.anchor_head.modules() if isinstance(module, FeatureHead)]
                device = next(head.parameters()).device
                idle = Recording([torch.zeros(0, part.channels, device=device) for part in parts])
                idle_losses = head.anchor_losses(idle, torch.zeros(0, dtype=torch.long, device=device))
                losses.update({f'{task}_{name}': value for name, value in idle_losses.items()})
        return losses


register_mixin(
    SARClsHeadMixin,
    {
        ClsHead: 'fc',
        StackedLinearClsHead: 'layers.-1.fc',
        VigClsHead: 'fc2',
        VisionTransformerClsHead: 'layers.head',
    },
)
register_mixin(SARArcFaceClsHeadMixin, {ArcFaceClsHead: 'norm_product'})
register_mixin(SARDeiTClsHeadMixin, {DeiTClsHead: ('layers.head', 'layers.head_dist')})
register_mixin(SARConformerHeadMixin, {ConformerHead: ('conv_cls_head', 'trans_cls_head')})
register_mixin(SARDistilledClsHeadMixin, {EfficientFormerClsHead: 'head'})
register_mixin(SARLeViTClsHeadMixin, {LeViTClsHead: 'head.linear'})
register_mixin(SARMultiLabelHeadMixin, {MultiLabelClsHead: 'fc'})
register_mixin(SARCSRAClsHeadMixin, {CSRAClsHead: 'csra_heads.0.head'})
register_mixin(SARMultiTaskHeadMixin, {MultiTaskHead: ()})

_OWN = 'or derive a head from it that has one, and call with_semantic_anchors()'
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
