"""Which predictions become pseudo-labels."""

import logging
from typing import Any, Dict, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor, nn

from ...checks import check, check_choice, check_probability
from ...registry import MODELS
from ..float32_buffers import Float32Buffers

TARGETS = ('uniform', 'labeled')


@MODELS.register_module()
class FixedThreshold(nn.Module):
    """One threshold for all, that of FixMatch (Sohn et al., NeurIPS 2020).

    Args:
        num_classes: K; the threshold does not depend on it.
        value: The smallest probability of a pseudo-label, in [0, 1].
    """

    def __init__(self, num_classes: int, value: float = 0.95) -> None:
        super().__init__()
        check_probability('semi.threshold', value, ends=True)
        self.value = value

    def forward(self, probability: Tensor, counted: Tensor) -> Tensor:
        """Return the threshold of every place, (N, ...) or one for all, for probabilities (N, K, ...)."""
        return probability.new_tensor(self.value)


class Averages(Float32Buffers):
    """A module whose buffers are only right together: all are loaded, or none where their shapes differ."""

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args) -> None:
        own = {prefix + name: buffer for name, buffer in self.named_buffers(recurse=False)}
        if any(name in state_dict and state_dict[name].shape != own[name].shape for name in own):
            state_dict.update(own)
        super()._load_from_state_dict(state_dict, prefix, *args)


@MODELS.register_module()
class SelfAdaptiveThreshold(Averages):
    """A threshold per class that rises as the model learns: FreeMatch's (Wang et al., ICLR 2023, eqs. 5 to 7).

    ``tau = (1 - m) tau + m mean(max_k q)`` and ``p = (1 - m) p + m mean(q)``, both from 1/K on, over the predictions q
    of all processes; the threshold of class k is ``tau p_k / max(p)``. Padding does not count. The paper's momentum,
    0.999, is ``1 - m``.

    Args:
        num_classes: K.
        momentum: m, the share of the new value in an update, in [0, 1].
    """

    overall: Tensor
    per_class: Tensor

    def __init__(self, num_classes: int, momentum: float = 0.001) -> None:
        super().__init__()
        check_momentum('threshold.momentum', momentum)
        self.momentum = momentum
        self.register_buffer('overall', torch.tensor(1 / num_classes, dtype=torch.float32))
        self.register_buffer('per_class', torch.full((num_classes,), 1 / num_classes, dtype=torch.float32))

    def forward(self, probability: Tensor, counted: Tensor) -> Tensor:
        """Average the probabilities (N, K, ...) that are ``counted`` (N, ...) and return the thresholds, (N, ...)."""
        confidence, label = probability.max(dim=1)
        update_average(self.overall, mean_over_processes(confidence[:, None], counted)[0], self.momentum)
        update_average(self.per_class, mean_over_processes(probability, counted), self.momentum)
        return (self.overall * self.per_class / self.per_class.max())[label]


@MODELS.register_module()
class DistributionAlignment(Averages):
    """Scales predictions such that on average the classes are as frequent as they should be.

    ``q_k target_k / mean(q)_k``, normalised; Berthelot et al., "ReMixMatch", ICLR 2020, section 3.1, with moving
    averages over all processes that start at the mean of the first batch. Neither padding nor ignored pixels count. The
    average of the labels is at first the plain mean of all batches: a class that the first one lacks would get no
    pseudo-labels for long.

    Args:
        num_classes: K.
        momentum: Share of the new value in an update, in [0, 1].
        target: ``'uniform'``, or ``'labeled'`` for the classes' shares in the labeled batches, a moving average.
    """

    predicted: Tensor
    wanted: Tensor
    batches: Tensor

    def __init__(self, num_classes: int, momentum: float = 0.001, target: str = 'uniform') -> None:
        super().__init__()
        check_momentum('distribution_alignment.momentum', momentum)
        check_choice('distribution_alignment.target', target, TARGETS)
        self.momentum = momentum
        self.target = target
        for name in ('predicted', 'wanted'):
            self.register_buffer(name, torch.full((num_classes,), 1 / num_classes, dtype=torch.float32))
        self.register_buffer('batches', torch.tensor(0.0, dtype=torch.float32))  # that are in the averages

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args) -> None:
        if f'{prefix}predicted' in state_dict:  # checkpoints of 0.1.0 have averages that started at 1/K
            state_dict.setdefault(f'{prefix}batches', torch.full_like(self.batches, 1e6))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, probability: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
        """Return probabilities (N, K, ...) aligned.

        Args:
            probability: (N, K, ...).
            labels: Of the labeled images, of any shape; what lies outside [0, K) is left out.
            counted: Which predictions are averaged, a boolean (N, ...).
        """
        means = [mean_over_processes(probability, counted)]
        is_first = (self.batches == 0).float()
        update_average(self.predicted, means[0], is_first.clamp(min=self.momentum))
        if self.target == 'labeled':
            num_classes = len(self.wanted)
            valid = (labels >= 0) & (labels < num_classes)
            one_hot = F.one_hot((labels * valid).flatten(), num_classes).to(probability.dtype)
            means.append(mean_over_processes(one_hot, valid.flatten()))
            update_average(self.wanted, means[1], (1 / (self.batches + 1)).clamp(min=self.momentum))
        # A first batch that overflowed, or that has no label, does not count.
        self.batches += torch.stack(means).isfinite().all()
        scale = self.wanted / self.predicted.clamp(min=1e-6)
        aligned = probability * scale.view(-1, *[1] * (probability.dim() - 2))
        return aligned / aligned.sum(dim=1, keepdim=True)


class PseudoLabels(nn.Module):
    """Turns probabilities into pseudo-labels.

    Args:
        num_classes: K.
        threshold: A number for :class:`FixedThreshold`, or the config of a threshold.
        alignment: Options of :class:`DistributionAlignment`; None: predictions are taken as they are.
    """

    def __init__(self, num_classes: int, threshold: Union[float, dict], alignment: Optional[dict]) -> None:
        super().__init__()
        if not isinstance(threshold, dict):
            threshold = dict(type='FixedThreshold', value=threshold)
        valid = "a number, or a config such as dict(type='SelfAdaptiveThreshold')"
        check('type' in threshold, 'semi.threshold', threshold, valid)
        self.threshold = MODELS.build(dict(threshold, num_classes=num_classes))
        self.alignment = None
        if alignment is not None:
            self.alignment = MODELS.build({'type': 'DistributionAlignment', **alignment, 'num_classes': num_classes})

    @torch.no_grad()
    def forward(self, probability: Tensor, labels: Tensor, counted: Tensor) -> Tuple[Tensor, Tensor, Dict[str, Tensor]]:
        """Return the pseudo-labels (N, ...), which of them count, a boolean (N, ...), and what to log.

        Args:
            probability: (N, K, ...), of the weak views.
            labels: Of the labeled images of the batch, of any shape.
            counted: Which predictions thresholds and alignment learn from, a boolean (N, ...).
        """
        if self.alignment is not None:
            probability = self.alignment(probability, labels, counted)
        threshold = self.threshold(probability, counted)
        confidence, label = probability.max(dim=1)
        return label, confidence >= threshold, dict(pseudo_threshold=threshold.mean())


def check_momentum(name: str, value: Any) -> None:
    """Raise a UsageError unless ``value`` lies in [0, 1]; warn above 0.5, as mmengine does for a moving average."""
    check_probability(name, value, ends=True)
    if value > 0.5:
        message = f'{name}={value} is the share of the new value in an update, which is usually small, such as 0.001'
        print_log(message, logger='current', level=logging.WARNING)


def update_average(average: Tensor, value: Tensor, momentum: Union[float, Tensor]) -> None:
    """Move an average in place, unless predictions overflowed: it would be NaN from then on."""
    average.lerp_(torch.where(value.isfinite().all(), value, average), momentum)


def mean_over_processes(value: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of values (N, K, ...) over the places (N, ...) that are counted, of all processes, (K,).

    It is NaN where none is counted.
    """
    # Not times 0: a value that does not count may be infinite.
    kept = value.masked_fill(~counted[:, None], 0).transpose(0, 1).flatten(1)
    sums = torch.cat([kept.sum(dim=1), counted.sum().to(kept.dtype)[None]])
    all_reduce(sums, op='sum')
    return sums[:-1] / sums[-1]
