from ...toolboxes import import_with
from .pseudo_labels import DistributionAlignment, FixedThreshold, SelfAdaptiveThreshold
from .teacher import MeanTeacher

import_with('mmseg', f'{__name__}.segmentor')
import_with('mmpretrain', f'{__name__}.classifier')

__all__ = ['DistributionAlignment', 'FixedThreshold', 'MeanTeacher', 'SelfAdaptiveThreshold']
