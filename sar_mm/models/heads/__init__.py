from ...toolboxes import import_with
from .adapter import HeadAdapter
from .factory import RefusedHead, adapts, with_semantic_anchors

import_with('mmseg', f'{__name__}.decode_heads')
import_with('mmpretrain', f'{__name__}.cls_heads')

__all__ = ['HeadAdapter', 'RefusedHead', 'adapts', 'with_semantic_anchors']
