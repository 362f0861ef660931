from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import are_weights, check, check_choice, check_weight
from ...class_counts import TakesClassCounts

REDUCTIONS = ('mean', 'sum', 'none')


class ClassCountLoss(TakesClassCounts, nn.Module):
    """Base class of cross-entropies that use class counts: a subclass overrides ``adjust`` or ``weights_for``.

    It has the arguments of both toolboxes' losses, and averages over all samples or pixels, ignored ones included, as
    their cross-entropy does by default. Class weights are scaled to average 1 over the batch's targets, as in PyTorch's
    weighted mean and the published recipes: weighting changes the balance, not the step size. In that average, a target
    counts by the weight of its sample; label and logits of a sample of weight 0 change nothing.

    Args:
        class_counts: Images or pixels of every class, K of them. None: :class:`ClassCountsHook` sets them.
        class_weight: Weights of the classes, K of them; an attribute that deferred re-weighting sets. None: all equal.
        loss_weight: Weight of the loss.
        loss_name: Its name in the log, with ``loss`` in it; used by mmseg.

    Raises:
        ValueError: A bad argument. In the first step, no counts, or counts or weights of another number than K.
    """

    def __init__(
        self,
        class_counts: Optional[Sequence[float]] = None,
        class_weight: Optional[Sequence[float]] = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ce',
    ) -> None:
        super().__init__()
        ok = class_weight is None or are_weights(class_weight)
        check(ok, 'class_weight', class_weight, 'None or a list of finite numbers of at least 0')
        check_weight('loss_weight', loss_weight)
        is_loss = isinstance(loss_name, str) and 'loss' in loss_name
        check(is_loss, 'loss_name', loss_name, 'a name with `loss` in it')
        self.class_weight = class_weight
        self.loss_weight = loss_weight
        self.loss_name = loss_name
        self.set_own_counts(class_counts)

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
            ignore_index=-100 if is_soft else ignore_index,  # soft targets take PyTorch's default only
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
        """Return the logits that the cross-entropy is taken of; ``counts`` are (K,) float32, at least 1."""
        return score

    def weights_for(self, counts: Tensor) -> Optional[Tensor]:
        """Return the weights of the classes, (K,) float32, or None if all are equal."""
        if self.class_weight is None:
            return None
        check(len(self.class_weight) == len(counts), 'class_weight', self.class_weight, f'{len(counts)} weights')
        return torch.as_tensor(self.class_weight, dtype=torch.float32).to(counts.device, non_blocking=True)


def _mean_weight(class_weight: Tensor, target: Tensor, weight: Optional[Tensor], ignore_index: int) -> Tensor:
    """Return the mean class weight of the targets, weighted by their samples: a scalar; 1 if nothing counts."""
    if target.is_floating_point():
        of_target, share = (target * class_weight).sum(dim=1), target.sum(dim=1)  # no matmul: autocast would round
    else:
        valid = target != ignore_index
        of_target, share = class_weight[target * valid] * valid, valid.float()
    if weight is not None:
        of_target, share = of_target * weight, share * weight
    total, number = of_target.sum(), share.sum()
    return torch.where(total > 0, total / number.clamp(min=torch.finfo(number.dtype).tiny), torch.ones_like(total))
