from .anchor_head import SemanticAnchorHead
from .backbones import CIFARResNet
from .heads import with_semantic_anchors
from .losses import ClassBalancedLoss, LDAMLoss, LogitAdjustedLoss, SARLoss

__all__ = [
    'CIFARResNet',
    'ClassBalancedLoss',
    'LDAMLoss',
    'LogitAdjustedLoss',
    'SARLoss',
    'SemanticAnchorHead',
    'with_semantic_anchors',
]
