from .base import PredefinedAnchors
from .embedding import EmbeddingAnchors
from .equiangular import EquiangularAnchors
from .gaussian import GaussianAnchors
from .orthogonal import OrthogonalAnchors
from .separated import SeparatedAnchors
from .simplex_etf import SimplexETFAnchors

__all__ = [
    'EmbeddingAnchors',
    'EquiangularAnchors',
    'GaussianAnchors',
    'OrthogonalAnchors',
    'PredefinedAnchors',
    'SeparatedAnchors',
    'SimplexETFAnchors',
]
