from abc import abstractmethod
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from ..checks import check_ignore_index, check_integer
from ..ops import nearest_labels
from .float32_buffers import Float32Buffers

Classify = Callable[[Tensor], Tensor]  # a task classifier without dropout: (M, C) -> logits (M, K)
Losses = Dict[str, Tensor]


class FeatureHead(Float32Buffers):
    """Base of the heads that add losses computed from the features in front of a classifier; used in training only.

    Args:
        num_classes: K, at least 2.
        channels: C, the channels of the features.
        ignore_index: Label that is left out. None: only labels outside [0, K) are.

    Raises:
        ValueError: An argument out of its range.
    """

    num_classes: int
    channels: int

    def __init__(self, num_classes: int, channels: int, ignore_index: Optional[int] = 255) -> None:
        super().__init__()
        check_integer('num_classes', num_classes, minimum=2)
        check_integer('channels', channels, minimum=1)
        check_ignore_index(ignore_index)
        self.num_classes = num_classes
        self.channels = channels
        self.ignore_index = ignore_index

    def loss(
        self,
        feature: Union[Tensor, Sequence[Tensor]],
        target: Union[Tensor, Sequence[Tensor]],
        classify: Classify,
        weight: Union[None, Tensor, Sequence[Optional[Tensor]]] = None,
    ) -> Losses:
        """Advance the state by one training step and return its losses.

        In evaluation mode, or without gradients, the losses are those of the same step, but no buffer changes.

        Args:
            feature: (N, C), (N, C, P) or (N, C, H, W), the task classifier's input before its dropout, of any floating
                dtype. Or a list of features, as of several forward passes, with lists of their targets and weights.
            target: Class indices (N,), (N, P), or (N, h, w) of any size, or class probabilities (N, K) of (N, C)
                features.
            classify: The task classifier.
            weight: Weights of the features, of the shape of class indices for them. None: all are 1.

        Returns:
            Losses, with ``loss`` in their names, and numbers for the log.
        """
        features, targets, weights = as_lists(feature, target, weight)
        feature, target, weight = _join(features), _join(targets), _join_weights(features, weights)
        if feature.dim() == 4 and target.dim() == 3:
            target = nearest_labels(target, feature.shape[2:])
        with torch.autocast(feature.device.type, enabled=False):
            return self.step(feature, target, classify, weight)

    @abstractmethod
    def step(self, feature: Tensor, target: Tensor, classify: Classify, weight: Optional[Tensor]) -> Losses:
        """Return what :meth:`loss` returns; a label map has the size of its features, and there is no autocast."""

    @property
    def keeps_state(self) -> bool:
        """Whether this step changes buffers: a loss that is computed for validation changes nothing."""
        return self.training and torch.is_grad_enabled()


def as_lists(
    feature: Union[Tensor, Sequence[Tensor]],
    target: Union[Tensor, Sequence[Tensor]],
    weight: Union[None, Tensor, Sequence[Optional[Tensor]]],
) -> Tuple[List[Tensor], List[Tensor], List[Optional[Tensor]]]:
    """Return the lists of features, targets and weights that :meth:`FeatureHead.loss` takes, of one feature as well."""
    if isinstance(feature, Tensor):  # then target and weight are no lists either
        return [feature], [target], [weight]  # type: ignore[list-item]
    return list(feature), list(target), [None] * len(feature) if weight is None else list(weight)


def _join(tensors: List[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _join_weights(features: List[Tensor], weights: List[Optional[Tensor]]) -> Optional[Tensor]:
    if all(weight is None for weight in weights):
        return None
    ones = [feature.new_ones(len(feature), *feature.shape[2:]) for feature in features]
    return _join([one if weight is None else weight for one, weight in zip(ones, weights)])
