from ...toolboxes import import_with
from .factory import RefusedHead, register_mixin, with_semantic_anchors
from .mixin import SARHeadMixin

import_with('mmseg', f'{__name__}.decode_heads')
import_with('mmpretrain', f'{__name__}.cls_heads')

__all__ = ['RefusedHead', 'SARHeadMixin', 'register_mixin', 'with_semantic_anchors']
