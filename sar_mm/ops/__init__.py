from .anchor_cross_entropy import anchor_cross_entropy, anchors_confident
from .effective_number import effective_number_weights
from .pull import nearest_labels, pull_loss
from .separation import pairwise_cosine, separation_loss

__all__ = [
    'anchor_cross_entropy',
    'anchors_confident',
    'effective_number_weights',
    'nearest_labels',
    'pairwise_cosine',
    'pull_loss',
    'separation_loss',
]
