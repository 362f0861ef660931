from .class_counts import ClassCountsHook
from .deferred import DeferredResamplingHook, DeferredReweightingHook
from .feature_tap import FeatureTapHook

__all__ = ['ClassCountsHook', 'DeferredResamplingHook', 'DeferredReweightingHook', 'FeatureTapHook']
