"""What losses and metrics share that use the number of training images or pixels of each class."""

from typing import List, Optional, Sequence

import torch
from torch import Tensor

from .checks import UsageError, check, check_class_counts

ADD_COUNTS = (
    "add dict(type='ClassCountsHook') to custom_hooks, which takes them from the training data or a file, or give it "
    'class_counts=[...]'
)


class TakesClassCounts:
    """Mixin of losses and metrics that use the number of training images or pixels of each class.

    A constructor passes its argument to :meth:`set_own_counts`; ClassCountsHook calls :meth:`set_class_counts`.

    Attributes:
        class_counts: K numbers; None until they are known. No buffer: the hook sets them after the model is built, and
            a moving average pairs the buffers of two models by their position.
        has_own_counts: Whether they are those of the config, which the hook does not replace.
    """

    class_counts: Optional[List[float]] = None
    has_own_counts = False

    def set_own_counts(self, class_counts: Optional[Sequence[float]]) -> None:
        """Set the counts of the config, unless None.

        Raises:
            ValueError: See :meth:`set_class_counts`.
        """
        if class_counts is not None:
            self.set_class_counts(class_counts)
            self.has_own_counts = True

    def set_class_counts(self, class_counts: Sequence[float]) -> None:
        """Set the counts of the training data, unless the config has some.

        Raises:
            ValueError: They are negative, shares, or all zero; of a metric, not one per class of its data.
        """
        if not self.has_own_counts:
            self.class_counts = check_class_counts('class_counts', class_counts)
            self.checked_class_counts()  # before the training, not after its first epoch

    def checked_class_counts(self, num_classes: Optional[int] = None) -> List[float]:
        """Return the counts.

        Args:
            num_classes: K; None: that of the classes of ``dataset_meta``, which metrics have, or any number without.

        Raises:
            ValueError: There are no counts, or not K.
        """
        if self.class_counts is None:
            raise UsageError(f'{type(self).__name__} has no class counts: {ADD_COUNTS}')
        if num_classes is None:
            classes = (getattr(self, 'dataset_meta', None) or {}).get('classes')
            num_classes = len(self.class_counts) if classes is None else len(classes)
        valid = f'one count for each of the {num_classes} classes'
        check(len(self.class_counts) == num_classes, 'class_counts', self.class_counts, valid)
        return self.class_counts

    def counts_for(self, score: Tensor) -> Tensor:
        """Return the counts as a loss needs them for logits (N, K, ...): (K,) float32 on their device, at least 1.

        Raises:
            ValueError: There are no counts, or not K.
        """
        counts = torch.tensor(self.checked_class_counts(score.shape[1]), dtype=torch.float32)
        # A class that never occurs would have an infinite margin, weight or adjustment.
        return counts.clamp(min=1).to(score.device, non_blocking=True)
