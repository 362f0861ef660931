from .class_counts import class_counts, effective_number_weights, read_class_counts
from .long_tailed import LongTailedDataset, long_tailed_counts
from .samplers import ClassPowerSampler

__all__ = [
    'ClassPowerSampler',
    'LongTailedDataset',
    'class_counts',
    'effective_number_weights',
    'long_tailed_counts',
    'read_class_counts',
]
