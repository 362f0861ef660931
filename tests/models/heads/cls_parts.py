"""Classification heads of all kinds, what they are given, and samples of their labels."""

import pytest
import torch

pytest.importorskip('mmpretrain.models')

from mmpretrain.registry import MODELS  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

import sar_mm.models  # noqa: E402, F401

OPTIONS = dict(
    ArcFaceClsHead=dict(in_channels=6),
    CSRAClsHead=dict(in_channels=6, num_heads=2, lam=0.1),
    ConformerHead=dict(in_channels=[6, 8]),
    DeiTClsHead=dict(in_channels=10, hidden_dim=6),
    EfficientFormerClsHead=dict(in_channels=6, distillation=False),
    LeViTClsHead=dict(in_channels=6, distillation=False),
    LinearClsHead=dict(in_channels=6),
    MultiLabelLinearClsHead=dict(in_channels=6),
    NormedLinearClsHead=dict(in_channels=6),
    StackedLinearClsHead=dict(in_channels=10, mid_channels=[8, 6], dropout_rate=0.5),
    VigClsHead=dict(in_channels=10, hidden_dim=6, dropout=0.5),
    VisionTransformerClsHead=dict(in_channels=6),
)
SINGLE_LABEL = [name for name in OPTIONS if name not in ('CSRAClsHead', 'MultiLabelLinearClsHead')]
MULTI_LABEL = [name for name in OPTIONS if name not in SINGLE_LABEL]
LABELS = [0, 3, 3, 1, 2, 0]
PRESENT = [[0], [3, 1], [], [1], [2, 0, 3], [0]]


def build(name, sar, **options):
    torch.manual_seed(0)
    head_class = MODELS.get(f'SAR{name}' if sar else name)
    return head_class(num_classes=4, **{**OPTIONS[name], **options})


def features(name):
    """What a head is given, of six images."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(len(LABELS), *shape, generator=generator).requires_grad_()

    if name == 'ConformerHead':
        return ([draw(6), draw(8)],)
    if name == 'DeiTClsHead':
        return ([draw(10), draw(10)],)
    if name == 'CSRAClsHead':
        return (draw(6, 3, 2),)
    if name == 'LeViTClsHead':
        return (draw(6),)
    return (draw(OPTIONS[name]['in_channels']),)


def hard(labels=LABELS):
    return [DataSample().set_gt_label(label) for label in labels]


def soft(scores):
    return [DataSample().set_gt_label(label).set_gt_score(score) for label, score in zip(LABELS, scores)]


def joined(tensors):
    return tensors if isinstance(tensors, torch.Tensor) else torch.cat(list(tensors))
