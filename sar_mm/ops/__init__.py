from .anchor_cross_entropy import anchor_costs, anchor_cross_entropy, anchor_scores, self_weighted_mean
from .effective_number import effective_number_weights
from .nearest_labels import nearest_labels
from .pull import pull_loss
from .separation import pairwise_cosine, separation_loss

__all__ = [
    'anchor_costs',
    'anchor_cross_entropy',
    'anchor_scores',
    'effective_number_weights',
    'nearest_labels',
    'pairwise_cosine',
    'pull_loss',
    'self_weighted_mean',
    'separation_loss',
]
