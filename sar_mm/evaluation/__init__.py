from ..toolboxes import import_with
from .feature_geometry import FeatureGeometry
from .group_accuracy import GroupAccuracy

import_with('mmseg', f'{__name__}.class_iou')
import_with('mmseg', f'{__name__}.group_iou')

__all__ = ['FeatureGeometry', 'GroupAccuracy']
