from abc import abstractmethod
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..checks import check_ignore_index, check_integer
from ..ops import nearest_labels
from .float32_buffers import Float32Buffers

Pulled = Tuple[Tensor, Tensor, Optional[Tensor]]  # features, targets and weights


class FeatureHead(Float32Buffers):
    """What a head adds to its losses, computed from the features that its classifier receives; in training only.

    Args:
        num_classes: K, at least 2.
        channels: C, the channels of the features.
        ignore_index: Label that is left out. None: none but those outside [0, K).

    Raises:
        ValueError: An argument out of its range.
    """

    def __init__(self, num_classes: int, channels: int, ignore_index: Optional[int] = 255) -> None:
        super().__init__()
        check_integer('num_classes', num_classes, minimum=2)
        check_integer('channels', channels, minimum=1)
        check_ignore_index(ignore_index)
        self.num_classes = num_classes
        self.channels = channels
        self.ignore_index = ignore_index
        self._first_pass: Optional[List[Pulled]] = None

    def loss(
        self,
        feature: Tensor,
        target: Tensor,
        classify: Callable[[Tensor], Tensor],
        weight: Optional[Tensor] = None,
    ) -> Dict[str, Tensor]:
        """Advance the state by one training step and return its losses.

        In evaluation mode, or without gradients, the losses are those of the same step, but no buffer changes.

        Args:
            feature: (N, C), (N, C, P) or (N, C, H, W), the task classifier's input before its dropout, of any floating
                dtype.
            target: Class indices (N,), (N, P), or (N, h, w) of any size, or class probabilities (N, K) of (N, C)
                features.
            classify: The task classifier without dropout, (M, C) -> logits (M, K).
            weight: Weights of the features, of the shape of class indices for them. None: all are 1.

        Returns:
            Losses, with ``loss`` in their names, and numbers for the log. Nothing for the first of :func:`two_passes`.
        """
        if self._first_pass is not None:
            if not self._first_pass:
                self._first_pass.append((feature, target, weight))
                return {}
            feature, target, weight = _join(self._first_pass.pop(), (feature, target, weight))
        if feature.dim() == 4 and target.dim() == 3:
            target = nearest_labels(target, feature.shape[2:])
        with torch.autocast(feature.device.type, enabled=False):
            return self.step(feature, target, classify, weight)

    @abstractmethod
    def step(
        self, feature: Tensor, target: Tensor, classify: Callable[[Tensor], Tensor], weight: Optional[Tensor]
    ) -> Dict[str, Tensor]:
        """Return what :meth:`loss` returns; a label map has the size of its features, and there is no autocast."""

    @property
    def keeps_state(self) -> bool:
        """Whether this step changes buffers: a loss that is computed for validation changes nothing."""
        return self.training and torch.is_grad_enabled()


@contextmanager
def two_passes(model: nn.Module) -> Iterator[None]:
    """Make one step of the feature heads of two forward passes: what the first one gives waits for the second.

    For a batch whose parts go through a model one after the other, so that anchors are classified and averaged once.
    """
    heads = [module for module in model.modules() if isinstance(module, FeatureHead)]
    for head in heads:
        head._first_pass = []
    try:
        yield
    finally:
        for head in heads:
            head._first_pass = None


def _join(first: Pulled, second: Pulled) -> Pulled:
    features, targets, weights = zip(first, second)
    if any(weight is not None for weight in weights):
        # Without a weight, all of them are 1: places of the feature, (N,), (N, P) or (N, H, W).
        weights = [
            feature.new_ones(len(feature), *feature.shape[2:]) if weight is None else weight
            for feature, weight in zip(features, weights)
        ]
        return torch.cat(features), torch.cat(targets), torch.cat(weights)
    return torch.cat(features), torch.cat(targets), None
