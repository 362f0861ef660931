from .anchor_head import SemanticAnchorHead
from .heads import with_semantic_anchors
from .losses import SARLoss

__all__ = ['SARLoss', 'SemanticAnchorHead', 'with_semantic_anchors']
