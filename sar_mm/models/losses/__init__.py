from .class_balanced import ClassBalancedLoss
from .counted import ClassCountLoss
from .ldam import LDAMLoss
from .logit_adjusted import LogitAdjustedLoss
from .sar_loss import SARLoss

__all__ = ['ClassBalancedLoss', 'ClassCountLoss', 'LDAMLoss', 'LogitAdjustedLoss', 'SARLoss']
