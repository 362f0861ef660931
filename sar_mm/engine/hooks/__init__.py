from .anchor_monitor import AnchorMonitorHook
from .anchor_weights import AnchorWeightHook
from .atomic_checkpoint import AtomicCheckpointHook
from .class_counts import ClassCountsHook
from .deferred import DeferredResamplingHook, DeferredReweightingHook
from .feature_tap import FeatureTapHook
from .seed_by_place import SeedByPlaceHook
from .share_buffers import ShareBuffersHook

__all__ = [
    'AnchorMonitorHook',
    'AnchorWeightHook',
    'AtomicCheckpointHook',
    'ClassCountsHook',
    'DeferredResamplingHook',
    'DeferredReweightingHook',
    'FeatureTapHook',
    'SeedByPlaceHook',
    'ShareBuffersHook',
]
