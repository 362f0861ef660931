from .anchor_weights import AnchorWeightHook
from .class_counts import ClassCountsHook
from .deferred import DeferredResamplingHook, DeferredReweightingHook
from .feature_tap import FeatureTapHook
from .share_buffers import ShareBuffersHook

__all__ = [
    'AnchorWeightHook',
    'ClassCountsHook',
    'DeferredResamplingHook',
    'DeferredReweightingHook',
    'FeatureTapHook',
    'ShareBuffersHook',
]
