"""Which of a teacher's predictions become labels."""

from typing import Dict, Optional, Tuple, Union

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from ...checks import check, check_choice, check_probability
from ...registry import MODELS

TARGETS = ('uniform', 'labelled')


@MODELS.register_module()
class FixedThreshold(nn.Module):
    """One threshold for all, that of FixMatch (Sohn et al., NeurIPS 2020).

    Args:
        num_classes: K; the threshold does not depend on it.
        value: A prediction becomes a label if its probability is above it, in [0, 1]: with 1, none does.
    """

    def __init__(self, num_classes: int, value: float = 0.95) -> None:
        super().__init__()
        check_probability('semi.threshold', value, ends=True)
        self.value = value

    def forward(self, probability: Tensor) -> Tensor:
        """Return the threshold of every place, (N, ...) or one for all, for probabilities (N, K, ...)."""
        return probability.new_tensor(self.value)


@MODELS.register_module()
class SelfAdaptiveThreshold(nn.Module):
    """A threshold per class that rises as the model learns: FreeMatch's (Wang et al., ICLR 2023, eqs. 5 to 7).

    ``tau = m tau + (1 - m) mean(max_k q)`` and ``p = m p + (1 - m) mean(q)``, both from 1/K on, over the predictions q
    of all processes; the threshold of class k is ``tau p_k / max(p)``.

    Args:
        num_classes: K.
        momentum: m, in [0, 1].
    """

    def __init__(self, num_classes: int, momentum: float = 0.999) -> None:
        super().__init__()
        check_probability('threshold.momentum', momentum, ends=True)
        self.momentum = momentum
        self.register_buffer('overall', torch.tensor(1 / num_classes))
        self.register_buffer('per_class', torch.full((num_classes,), 1 / num_classes))

    def forward(self, probability: Tensor) -> Tensor:
        """Take the probabilities (N, K, ...) in, and return the threshold of every place, (N, ...)."""
        confidence, label = probability.max(dim=1)
        update_average(self.overall, mean_over_processes(confidence.mean()), self.momentum)
        update_average(self.per_class, mean_over_processes(class_mean(probability)), self.momentum)
        return (self.overall * self.per_class / self.per_class.max())[label]


@MODELS.register_module()
class DistributionAlignment(nn.Module):
    """Scales predictions such that on average the classes are as frequent as they should be.

    ``q_k target_k / mean(q)_k``, normalised; Berthelot et al., "ReMixMatch", ICLR 2020, section 3.1, with moving
    averages over the predictions of all processes, from 1/K on.

    Args:
        num_classes: K.
        momentum: Share of the old average, in [0, 1].
        target: ``'uniform'``, or ``'labelled'`` for the classes' shares in the labelled batches, a moving average.
    """

    def __init__(self, num_classes: int, momentum: float = 0.999, target: str = 'uniform') -> None:
        super().__init__()
        check_probability('distribution_alignment.momentum', momentum, ends=True)
        check_choice('distribution_alignment.target', target, TARGETS)
        self.momentum = momentum
        self.target = target
        self.register_buffer('predicted', torch.full((num_classes,), 1 / num_classes))
        self.register_buffer('wanted', torch.full((num_classes,), 1 / num_classes))

    def forward(self, probability: Tensor, labels: Tensor) -> Tensor:
        """Return probabilities (N, K, ...) aligned.

        Args:
            probability: (N, K, ...).
            labels: Of the labelled images, of any shape; what lies outside [0, K) is left out.
        """
        update_average(self.predicted, mean_over_processes(class_mean(probability)), self.momentum)
        if self.target == 'labelled':
            num_classes = len(self.wanted)
            valid = (labels >= 0) & (labels < num_classes)
            counts = probability.new_zeros(num_classes)
            counts.index_add_(0, (labels * valid).flatten(), valid.flatten().to(counts.dtype))
            share = mean_over_processes(counts / counts.sum().clamp(min=1))
            update_average(self.wanted, share, self.momentum)
        scale = self.wanted / self.predicted.clamp(min=1e-6)
        aligned = probability * scale.view(-1, *[1] * (probability.dim() - 2))
        return aligned / aligned.sum(dim=1, keepdim=True)


class PseudoLabels(nn.Module):
    """Makes labels of a teacher's probabilities.

    Args:
        num_classes: K.
        threshold: A number for :class:`FixedThreshold`, or the config of a threshold.
        alignment: Options of :class:`DistributionAlignment`; None: predictions are taken as they are.
    """

    def __init__(self, num_classes: int, threshold: Union[float, dict], alignment: Optional[dict]) -> None:
        super().__init__()
        if not isinstance(threshold, dict):
            threshold = dict(type='FixedThreshold', value=threshold)
        check(
            'type' in threshold,
            'semi.threshold',
            threshold,
            "a number, or a config such as dict(type='SelfAdaptiveThreshold')",
        )
        self.threshold = MODELS.build(dict(threshold, num_classes=num_classes))
        self.alignment = None
        if alignment is not None:
            self.alignment = MODELS.build({'type': 'DistributionAlignment', **alignment, 'num_classes': num_classes})

    @torch.no_grad()
    def forward(self, probability: Tensor, labels: Tensor) -> Tuple[Tensor, Tensor, Dict[str, Tensor]]:
        """Return the pseudo-labels (N, ...), which of them count, a boolean (N, ...), and what to log.

        Args:
            probability: (N, K, ...), of the weak views.
            labels: Of the labelled images of the batch, of any shape.
        """
        if self.alignment is not None:
            probability = self.alignment(probability, labels)
        threshold = self.threshold(probability)
        confidence, label = probability.max(dim=1)
        return label, confidence > threshold, dict(pseudo_threshold=threshold.mean())


def class_mean(probability: Tensor) -> Tensor:
    """Return the mean of probabilities (N, K, ...) over all but the classes, (K,)."""
    return probability.transpose(0, 1).flatten(1).mean(dim=1)


def update_average(average: Tensor, value: Tensor, momentum: float) -> None:
    """Move an average in place; where predictions overflowed it stays as it is, or it would be NaN for good."""
    average.lerp_(torch.where(value.isfinite().all(), value, average), 1 - momentum)


def mean_over_processes(value: Tensor) -> Tensor:
    all_reduce(value, op='mean')
    return value
