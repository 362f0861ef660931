"""What semantic anchors were proposed against, in the same heads and configs: for comparisons, not for use.

``anchor_head=dict(type='PrototypeHead')`` in a SAR head puts one in place of the anchors; ``ETFClsHead`` is a head.
"""

from ..toolboxes import import_with
from .balanced_features import BalancedFeaturesHead
from .center_loss import CenterLossHead
from .prototypes import PrototypeHead
from .supervised_contrastive import SupervisedContrastiveHead

import_with('mmpretrain', f'{__name__}.etf_classifier')

__all__ = ['BalancedFeaturesHead', 'CenterLossHead', 'PrototypeHead', 'SupervisedContrastiveHead']
