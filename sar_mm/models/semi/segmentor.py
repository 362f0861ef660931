from contextlib import contextmanager
from typing import Any, Iterator, List, Optional

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ...checks import check, check_probability
from ...registry import MODELS
from ..losses.counted import ClassCountLoss
from ..module_lists import as_modules
from .base import SemiModel, check_options
from .cutmix import Paste, draw_pastes
from .view import View

_REFUSED = {
    'PIDHead': 'it needs maps of edges, which unlabeled images have not',
    'STDCHead': 'it makes edges of the labels, and would see some where pseudo-labels are left out',
    'EncHead': 'its loss_se learns which classes an image lacks, which pseudo-labels do not say',
    'VPDDepthHead': 'it regresses depth and has no classes',
    'MaskFormerHead': 'it classifies mask queries, not pixels',
    'Mask2FormerHead': 'it classifies mask queries, not pixels',
    'SideAdapterCLIPHead': 'it classifies mask proposals, not pixels',
}


@MODELS.register_module()
class SemiSegmentor(SemiModel):
    """Semi-supervised training of a segmentor of mmseg: FixMatch for pixels, with UniMatch's and other options.

    A pixel's pseudo-label is the class predicted in the weak view if its probability is at least the threshold, else
    the pixel is ignored. Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation"
    (UniMatch), CVPR 2023: two strong views and ``feature_dropout=0.5``. Semantic anchors pull labeled features by
    their labels and those of other views by the pseudo-labels that count.

    Args:
        segmentor: Config of a segmentor, stock or with semantic anchors.
        semi: Options of :class:`SemiModel`, and

            - ``cutmix_prob`` (0.5): share of unlabeled images in each strong view that get a box of another one;
              without a teacher, the box is labeled in evaluation mode.
            - ``feature_dropout`` (0.0): share of channels that are dropped from the features of the weak views, which
              the student then learns from, too: the loss on unlabeled images is the mean of that of the strong views
              and that of the weak ones. 0: it does not learn from weak views.
        data_preprocessor: That of the segmentor, where the config has it beside the model.

    Raises:
        TypeError: The segmentor has no head that labels pixels.
        ValueError: A bad option.

    Example::

        _base_ = './deeplabv3plus_r50-d8_pascal_voc12.py'
        model = dict(
            _delete_=True,
            type='SemiSegmentor',
            segmentor=_base_.model,
            semi=dict(threshold=0.95, feature_dropout=0.5))
    """

    same_geometry = True
    ignore_index: int

    def __init__(self, segmentor: dict, semi: Optional[dict] = None, data_preprocessor: Optional[dict] = None) -> None:
        options = check_options(semi, own=('cutmix_prob', 'feature_dropout'))
        self.cutmix_prob = options.pop('cutmix_prob', 0.5)
        self.feature_dropout = options.pop('feature_dropout', 0.0)
        check_probability('semi.cutmix_prob', self.cutmix_prob, ends=True)
        check_probability('semi.feature_dropout', self.feature_dropout, ends=True)
        check(self.feature_dropout < 1, 'semi.feature_dropout', self.feature_dropout, 'below 1')
        self.perturbs_features = self.feature_dropout > 0
        super().__init__(segmentor, data_preprocessor, **options)

    def count_classes(self) -> int:
        heads: List[Any] = as_modules(getattr(self.student, 'decode_head', None)) or [None]
        heads += as_modules(getattr(self.student, 'auxiliary_head', None))
        for head in heads:
            reason = next((_REFUSED[base.__name__] for base in type(head).__mro__ if base.__name__ in _REFUSED), None)
            if reason is None and not isinstance(head, BaseDecodeHead):
                reason = 'it is no head that labels pixels'
            if reason is not None:
                raise TypeError(f'SemiSegmentor cannot train a {type(head).__name__}: {reason}')
            check(
                head.ignore_index == heads[0].ignore_index,
                f'ignore_index of {type(head).__name__}',
                head.ignore_index,
                f'{heads[0].ignore_index}, as in the decode head',
            )
            owner = getattr(head, 'kernel_generate_head', head)  # K-Net takes the losses of all its stages from there
            for loss in as_modules(owner.loss_decode):
                check_loss(loss, owner)
        self.ignore_index = heads[0].ignore_index
        return heads[0].num_classes

    def predict_probability(self, model: Any, images: Tensor) -> Tensor:
        size = images.shape[2:]
        logits = model.encode_decode(images, [dict(img_shape=size, pad_shape=size)] * len(images)).float()
        if logits.shape[1] > 1:
            return logits.softmax(dim=1)
        positive = logits.sigmoid()
        return torch.cat([1 - positive, positive], dim=1)

    def true_labels(self, samples: List[SegDataSample]) -> Optional[Tensor]:
        if not all('gt_sem_seg' in sample for sample in samples):
            return None
        labels = torch.cat([sample.gt_sem_seg.data for sample in samples]).long()
        return labels.masked_fill(labels == self.ignore_index, -1)

    def inside(self, label: Tensor, samples: List[SegDataSample]) -> Tensor:
        inside = torch.zeros_like(label, dtype=torch.bool)
        for image, sample in zip(inside, samples):
            height, width = sample.metainfo['img_shape'][:2]
            image[:height, :width] = True
        return inside

    def draw_pastes(self, images: Tensor) -> List[Paste]:
        height, width = images.shape[-2:]
        return draw_pastes(len(images), height, width, self.cutmix_prob)

    def label_samples(self, view: View) -> List[SegDataSample]:
        labels = view.label.masked_fill(~view.mask, self.ignore_index)
        return [
            SegDataSample(metainfo=sample.metainfo, gt_sem_seg=PixelData(data=label[None]))
            for sample, label in zip(view.samples, labels)
        ]

    @property
    def out_channels(self) -> int:
        """Outputs per pixel, which mmseg's test-time augmentation asks for."""
        return self.student.out_channels

    @contextmanager
    def perturbing(self, start: int) -> Iterator[None]:
        if not self.perturbs_features:
            yield
            return
        last = self.student.neck if self.student.with_neck else self.student.backbone

        def drop_channels(module: nn.Module, inputs: tuple, features: Any) -> Any:
            return _perturb(features, start, self.feature_dropout)

        handle = last.register_forward_hook(drop_channels)
        try:
            yield
        finally:
            handle.remove()


def check_loss(loss: nn.Module, head: Any) -> None:
    """Raise a TypeError unless a loss is finite and has no gradient where every pixel is ignored."""
    if isinstance(loss, ClassCountLoss):  # which may get its counts later only
        return
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(1, head.out_channels, 4, 4, generator=generator, device='cpu').requires_grad_()
    target = torch.full((1, 4, 4), head.ignore_index, device='cpu')
    try:
        with torch.enable_grad():
            value = loss(pred, target, weight=None, ignore_index=head.ignore_index)
            if value.requires_grad:
                value.sum().backward()
        ok = value.dim() == 0 and bool(value.isfinite()) and (pred.grad is None or not pred.grad.any())
        found = f'{value.tolist()}' + ('' if ok else ' and a gradient')
    except Exception as error:  # whatever a loss stumbles over
        ok, found = False, f'{type(error).__name__}: {error}'
    if not ok:
        raise TypeError(
            f'SemiSegmentor cannot train a {type(head).__name__} with {type(loss).__name__}: where all pixels are '
            f'ignored, as pseudo-labels are early in training, it should be finite and without a gradient, but gives '
            f'{found}; use CrossEntropyLoss on two or more outputs'
        )


def _perturb(features: Any, start: int, prob: float) -> Any:
    """Drop channels of feature maps (N, C, H, W) of the images from ``start`` on."""
    if isinstance(features, (list, tuple)):
        return type(features)(_perturb(feature, start, prob) for feature in features)
    if not isinstance(features, Tensor) or features.dim() != 4:
        kind = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(f'semi.feature_dropout needs feature maps (N, C, H, W), but the backbone or neck gives {kind}')
    return torch.cat([features[:start], F.dropout2d(features[start:], prob)])
