from .anchor_cross_entropy import anchor_cross_entropy, anchors_confident
from .pull import nearest_labels, pull_loss
from .separation import pairwise_cosine

__all__ = ['anchor_cross_entropy', 'anchors_confident', 'nearest_labels', 'pairwise_cosine', 'pull_loss']
