from .class_balanced import ClassBalancedLoss
from .counted import ClassCountLoss
from .ldam import LDAMLoss
from .logit_adjusted import LogitAdjustedLoss
from .sar_loss import LogitAdjustedSARLoss, SARLoss

__all__ = ['ClassBalancedLoss', 'ClassCountLoss', 'LDAMLoss', 'LogitAdjustedLoss', 'LogitAdjustedSARLoss', 'SARLoss']
