from . import semi  # noqa: F401
from .anchor_head import SemanticAnchorHead
from .backbones import CIFARResNet, WideResNet
from .heads import with_semantic_anchors
from .losses import ClassBalancedLoss, LDAMLoss, LogitAdjustedLoss, LogitAdjustedSARLoss, SARLoss

__all__ = [
    'CIFARResNet',
    'ClassBalancedLoss',
    'LDAMLoss',
    'LogitAdjustedLoss',
    'LogitAdjustedSARLoss',
    'SARLoss',
    'SemanticAnchorHead',
    'WideResNet',
    'with_semantic_anchors',
]
