from typing import List, Optional

import torch
from torch import Tensor

from ..checks import check_ignore_index, check_integer, check_seed
from .feature_statistics import labeled_rows


class ClassReservoir:
    """A random sample of at most ``size`` features of every class from a stream, without replacement.

    Every feature gets a random number, and a class keeps those with the smallest ones: each of its features is kept
    with the same probability. With the same seed, the features of the same images are kept of two models.

    Args:
        num_classes: K.
        size: Features to keep per class.
        seed: Seed of the random numbers.
        ignore_index: A class index to leave out, besides those outside [0, K).

    Example::

        reservoir = ClassReservoir(num_classes=19, size=100)
        reservoir.update(feature, target)      # as often as there are batches
        reservoir.features, reservoir.labels   # (M, C), (M,), by class
    """

    def __init__(self, num_classes: int, size: int, seed: int = 0, ignore_index: Optional[int] = None) -> None:
        check_integer('num_classes', num_classes, minimum=1)
        check_integer('size', size, minimum=1)
        check_seed(seed)
        check_ignore_index(ignore_index)
        self.num_classes = num_classes
        self.size = size
        self.ignore_index = ignore_index
        self._generator = torch.Generator().manual_seed(seed)
        self._keys: List[Tensor] = [torch.zeros(0)] * num_classes
        self._features: List[Optional[Tensor]] = [None] * num_classes

    @torch.no_grad()
    def update(self, feature: Tensor, target: Tensor) -> None:
        """Offer a batch: features (N, C) or (N, C, H, W) with class indices (N,) or (N, H, W)."""
        rows, labels = labeled_rows(feature, target, self.num_classes, self.ignore_index)
        labels = labels.cpu()
        keys = torch.rand(len(rows), generator=self._generator)
        for k in labels.unique().tolist():
            index = (labels == k).nonzero().flatten()
            # At most `size` features of a batch are kept: of large feature maps, only these rows are copied.
            index = index[keys[index].argsort()[: self.size]]
            found = rows[index.to(rows.device)].float().cpu()
            candidates = found if self._features[k] is None else torch.cat([self._features[k], found])
            candidate_keys = torch.cat([self._keys[k], keys[index]])
            kept = candidate_keys.argsort()[: self.size]
            self._keys[k], self._features[k] = candidate_keys[kept], candidates[kept]

    @property
    def features(self) -> Tensor:
        """(M, C), the rows of class 0 first."""
        return torch.cat([rows for rows in self._features if rows is not None])

    @property
    def labels(self) -> Tensor:
        """(M,)"""
        return torch.cat([torch.full((len(keys),), k) for k, keys in enumerate(self._keys)])
