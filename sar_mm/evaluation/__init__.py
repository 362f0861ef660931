from ..toolboxes import import_with

import_with('mmseg', f'{__name__}.class_iou')
