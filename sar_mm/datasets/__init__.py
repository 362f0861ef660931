from .checked_loading import CheckedLoading
from .class_counts import class_counts, read_class_counts
from .distinct_images import distinct_class_counts, distinct_images
from .labeled_images import draw_covering, draw_fraction, draw_per_class, read_indices
from .labeled_subset import LabeledSubset
from .long_tailed import LongTailedDataset, long_tailed_counts
from .noisy_labels import NoisyLabels
from .samplers import ClassPowerSampler, LabeledUnlabeledSampler
from .semi_supervised import SemiSupervisedDataset
from .transforms import MultiBranch

__all__ = [
    'CheckedLoading',
    'ClassPowerSampler',
    'LabeledSubset',
    'LabeledUnlabeledSampler',
    'LongTailedDataset',
    'MultiBranch',
    'NoisyLabels',
    'SemiSupervisedDataset',
    'class_counts',
    'distinct_class_counts',
    'distinct_images',
    'draw_covering',
    'draw_fraction',
    'draw_per_class',
    'long_tailed_counts',
    'read_class_counts',
    'read_indices',
]
