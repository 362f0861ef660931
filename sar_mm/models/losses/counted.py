from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import are_weights, check, check_choice, check_class_counts, check_weight

REDUCTIONS = ('mean', 'sum', 'none')


class TakesClassCounts(nn.Module):
    """A module that knows how often each class occurs in the training data.

    Args:
        class_counts: Images or pixels of every class, K of them. None: :class:`ClassCountsHook` brings them.

    Raises:
        ValueError: Counts that are negative, shares, all zero or not as many as the classes, no counts at the first
            step.
    """

    def __init__(self, class_counts: Optional[Sequence[float]] = None) -> None:
        super().__init__()
        # No buffer: what a hook sets after the model is built would shift the pairs of buffers that a moving average
        # of the model is made of, and a checkpoint would not be a stock one.
        self.class_counts: Optional[Tensor] = None
        self.has_own_counts = False
        self.set_own_counts(class_counts)

    def set_own_counts(self, class_counts: Optional[Sequence[float]]) -> None:
        """Take the counts given in the config, unless None."""
        if class_counts is not None:
            self._keep(class_counts)
            self.has_own_counts = True

    def set_class_counts(self, class_counts: Sequence[float]) -> None:
        """Take the counts of the training data; counts given in the config stay."""
        if not self.has_own_counts:
            self._keep(class_counts)

    def _keep(self, class_counts: Sequence[float]) -> None:
        counts = torch.tensor(check_class_counts('class_counts', class_counts), dtype=torch.float64)
        # A class that never occurs would have an infinite margin, weight or adjustment.
        self.class_counts = counts.clamp(min=1).float()

    def counts_for(self, score: Tensor) -> Tensor:
        """Return the counts, (K,), on the device of logits, (N, K, ...)."""
        name = type(self).__name__
        if self.class_counts is None:
            raise ValueError(
                f"{name} has no class counts: add dict(type='ClassCountsHook') to custom_hooks, which takes them from "
                'the training data'
            )
        if len(self.class_counts) != score.shape[1]:
            raise ValueError(
                f'{name} has counts of {len(self.class_counts)} classes, but the head gives {score.shape[1]} logits'
            )
        return self._placed('class_counts', score.device)

    def _placed(self, name: str, device: torch.device) -> Tensor:
        """Return a tensor of this module on a device, and keep it there: the next step need not copy it."""
        value = getattr(self, name)
        if value.device != device:
            value = value.to(device)
            setattr(self, name, value)
        return value


class ClassCountLoss(TakesClassCounts):
    """Cross-entropy that knows how often each class occurs in the training data; what it does with it is up to others.

    It is called as the losses of both toolboxes are, and averages over all samples or pixels, ignored ones included, as
    their cross-entropy does by default. Class weights are scaled to average 1 over the batch's targets, as in PyTorch's
    weighted mean and the published recipes: weighting changes the balance, not the step size. In that average, a target
    counts by the weight of its sample; label and logits of a sample of weight 0 change nothing.

    Args:
        class_counts: Images or pixels of every class, K of them. None: :class:`ClassCountsHook` brings them.
        class_weight: Weights of the classes, K of them; deferred re-weighting sets them. None: all alike.
        loss_weight: Weight of the loss.
        loss_name: Its name in the log, with ``loss`` in it; used by mmseg.

    Raises:
        ValueError: Counts that are negative, shares, all zero or not as many as the classes, no counts at the first
            step, a negative weight.
    """

    def __init__(
        self,
        class_counts: Optional[Sequence[float]] = None,
        class_weight: Optional[Sequence[float]] = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__(class_counts)
        check_weight('loss_weight', loss_weight)
        is_loss = isinstance(loss_name, str) and 'loss' in loss_name
        check(is_loss, 'loss_name', loss_name, 'a name with `loss` in it')
        self.loss_weight = loss_weight
        self.loss_name = loss_name
        self._class_weight: Optional[Tensor] = None
        self._given_weight: Optional[Sequence[float]] = None
        self.class_weight = class_weight

    @property
    def class_weight(self) -> Optional[Tensor]:
        """Weights of the classes, (K,), or None; a sequence of K numbers may be assigned."""
        return self._class_weight

    @class_weight.setter
    def class_weight(self, value: Optional[Sequence[float]]) -> None:
        if value is not self._given_weight:  # a hook assigns the same list in every step
            ok = value is None or are_weights(value)
            check(ok, 'class_weight', value, 'None or a list of finite numbers of at least 0')
            self._given_weight = value
            self._class_weight = None if value is None else torch.as_tensor(value, dtype=torch.float32)

    def forward(
        self,
        score: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        ignore_index: int = -100,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Return the weighted loss, a scalar unless ``reduction_override`` is ``'none'``.

        Args:
            score: Logits, (N, K) or (N, K, H, W).
            target: Class indices, (N,) or (N, H, W), or class probabilities (N, K).
            weight: A weight per sample or pixel.
            avg_factor: Divisor of the sum. None: the number of samples or pixels.
            ignore_index: Class index that is left out.
            reduction_override: ``'mean'``, as None, ``'sum'``, or ``'none'`` for the loss of every sample or pixel, for
                samplers of hard pixels.
        """
        reduction = 'mean' if reduction_override is None else reduction_override
        check_choice('reduction_override', reduction, REDUCTIONS)
        counts = self.counts_for(score)
        is_soft = target.is_floating_point()
        if is_soft:
            target = target.float()
        elif weight is not None:
            # Times 0 would do, but for a label that is no class, which the cross-entropy refuses.
            target = target.masked_fill(weight == 0, ignore_index)
        class_weight = self.weights_for(counts)
        loss = F.cross_entropy(
            self.adjust(score.float(), target, counts),
            target,
            weight=class_weight,
            reduction='none',
            **({} if is_soft else dict(ignore_index=ignore_index)),
        )
        if class_weight is not None:
            loss = loss / _mean_weight(class_weight, target, weight, ignore_index)
        if weight is not None:
            loss = loss * weight
        if reduction == 'mean':
            loss = loss.mean() if avg_factor is None else loss.sum() / avg_factor
        elif reduction == 'sum':
            loss = loss.sum()
        return self.loss_weight * loss

    def adjust(self, score: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        """Return the logits that the cross-entropy is taken of."""
        return score

    def weights_for(self, counts: Tensor) -> Optional[Tensor]:
        """Return the weights of the classes, (K,), if there are any."""
        if self._class_weight is None:
            return None
        check(len(self._class_weight) == len(counts), 'class_weight', self._given_weight, f'{len(counts)} weights')
        return self._placed('_class_weight', counts.device)


def _mean_weight(class_weight: Tensor, target: Tensor, weight: Optional[Tensor], ignore_index: int) -> Tensor:
    """Return the mean class weight of the targets that count, by their samples' weights: a scalar; 1 without any."""
    if target.is_floating_point():
        of_target, share = (target * class_weight).sum(dim=1), target.sum(dim=1)  # no matmul: autocast would round
    else:
        valid = target != ignore_index
        of_target, share = class_weight[target * valid] * valid, valid.float()
    if weight is not None:
        of_target, share = of_target * weight, share * weight
    total, number = of_target.sum(), share.sum()
    return torch.where(total > 0, total / number.clamp(min=torch.finfo(number.dtype).tiny), torch.ones_like(total))
