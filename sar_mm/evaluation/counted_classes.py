from typing import List, Optional, Sequence

from ..checks import check, check_class_counts


class CountedClasses:
    """Mixin of the metrics that group classes by how often they are in the training data.

    Attributes:
        class_counts: Training images or pixels per class; None until they are known.
    """

    def init_class_counts(self, class_counts: Optional[Sequence[float]]) -> None:
        """Take the counts of the config, if there are any; they are not overridden later."""
        self.class_counts: Optional[List[float]] = None
        if class_counts is not None:
            self.set_class_counts(class_counts)
        self.counts_are_given = class_counts is not None

    def set_class_counts(self, counts: Sequence[float]) -> None:
        """Set the training images or pixels per class, unless the config gives them; ClassCountsHook calls this.

        Raises:
            ValueError: Not a sequence of counts, or not one for each class of the data set where that is known.
        """
        if getattr(self, 'counts_are_given', False):
            return
        self.class_counts = check_class_counts('class_counts', counts)
        self._check_length()

    def _check_length(self) -> None:
        classes = (self.dataset_meta or {}).get('classes')
        if classes is not None:
            one_each = f'one count for each of the {len(classes)} classes of the data set'
            check(len(self.class_counts) == len(classes), 'class_counts', self.class_counts, one_each)

    def checked_class_counts(self) -> List[float]:
        """Return the counts.

        Raises:
            RuntimeError: Nobody set them.
            ValueError: They are not those of the classes of the data set.
        """
        name = type(self).__name__
        if self.class_counts is None:
            raise RuntimeError(
                f'{name} does not know how often the classes are in the training data: add '
                f"dict(type='ClassCountsHook') to custom_hooks of the config, or give {name} class_counts=[...]"
            )
        self._check_length()
        return self.class_counts
