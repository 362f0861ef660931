from typing import Dict, Optional, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import check, check_choice, check_flag, check_probability, check_weight, is_number
from ...class_counts import TakesClassCounts
from ...ops import anchor_costs, pull_loss, self_weighted_mean, separation_loss
from ...ops.precision import at_least_float32
from ...registry import MODELS
from .logit_adjusted import adjust_logits

DISTANCES = ('euclidean', 'cosine')


@MODELS.register_module()
class SARLoss(nn.Module):
    """The two losses that semantic anchors add to a task: ``1.0 * L_anchor + 0.1 * L_pull`` by default.

    Args:
        anchor_weight: Weight of the anchor classification loss.
        pull_weight: Weight of the pull of the features to their anchors.
        confidence_threshold: Anchors classified with a higher probability are left out of the anchor classification
            loss. None: none is left out.
        class_balanced: Average the pull within each class first, then over the classes present.
        separation_weight: Weight of a penalty on pairs of embedded anchors that lie close to each other.
        separation_margin: The cosine from which on they do.
        sync_valid: Take the pull's mean over the valid features of all processes, instead of each process over its
            own: the only option that communicates, one number per forward pass (of a ``class_balanced`` pull, K).
        distance: Of a feature to its anchor: ``'euclidean'``, the squared distance per channel, or ``'cosine'``,
            ``1 - cos``.

    Raises:
        ValueError: A negative weight, a confidence threshold outside (0, 1), a margin outside [-1, 1], an unknown
            distance.

    Example::

        anchor_head=dict(loss=dict(pull_weight=0.5))
    """

    def __init__(
        self,
        anchor_weight: float = 1.0,
        pull_weight: float = 0.1,
        confidence_threshold: Optional[float] = 0.9,
        class_balanced: bool = False,
        separation_weight: float = 0.0,
        separation_margin: float = 0.0,
        sync_valid: bool = False,
        distance: str = 'euclidean',
    ) -> None:
        super().__init__()
        check_weight('anchor_weight', anchor_weight)
        check_weight('pull_weight', pull_weight)
        check_weight('separation_weight', separation_weight)
        if confidence_threshold is not None:
            check_probability('confidence_threshold', confidence_threshold, ends=False)
        margin = separation_margin
        check(is_number(margin) and -1 <= margin <= 1, 'separation_margin', margin, 'a number in [-1, 1]')
        check_flag('class_balanced', class_balanced)
        check_flag('sync_valid', sync_valid)
        check_choice('distance', distance, DISTANCES)
        self.anchor_weight = anchor_weight
        self.pull_weight = pull_weight
        self.confidence_threshold = confidence_threshold
        self.distance = distance
        self.class_balanced = class_balanced
        self.separation_weight = separation_weight
        self.separation_margin = separation_margin
        self.sync_valid = sync_valid

    def forward(
        self,
        anchor_costs: Tensor,
        embedded: Tensor,
        feature: Tensor,
        target: Tensor,
        semantic_anchors: Tensor,
        gate: Tensor,
        ignore_index: Optional[int] = None,
        weight: Optional[Tensor] = None,
    ) -> Dict[str, Tensor]:
        """Return the weighted losses by name.

        Args:
            anchor_costs: (K,), the cross-entropies of the embedded anchors, of :meth:`anchor_costs`.
            embedded: A, (K, C), the embedded anchors.
            feature: See :func:`sar_mm.ops.pull_loss`.
            target: See :func:`sar_mm.ops.pull_loss`.
            semantic_anchors: S, (K, C).
            gate: 1.0 where features are pulled in this step, else 0.0; a scalar, or one per class, (K,).
            ignore_index: See :func:`sar_mm.ops.pull_loss`.
            weight: Weights of the features in the pull, see :func:`sar_mm.ops.pull_loss`.
        """
        pull = self.pull(
            feature=feature,
            target=target,
            semantic_anchors=semantic_anchors,
            ignore_index=ignore_index,
            gate=gate if gate.dim() else None,
            weight=weight,
        )
        losses = dict(
            loss_anchor=self.anchor_weight * self_weighted_mean(anchor_costs, self.confidence_threshold),
            # Filled rather than multiplied: the pull of huge features is infinite, and 0 times that, NaN.
            loss_pull=self.pull_weight * (pull if gate.dim() else pull.masked_fill(gate == 0, 0.0)),
        )
        if self.separation_weight > 0:
            losses.update(loss_separation=self.separation_weight * separation_loss(embedded, self.separation_margin))
        return losses

    def anchor_costs(self, logits: Tensor, first: int = 0) -> Tensor:
        """Return the cross-entropies of anchors, (B,), see :func:`sar_mm.ops.anchor_costs`."""
        return anchor_costs(logits, first)

    def pull(self, feature: Tensor, semantic_anchors: Tensor, **options) -> Tensor:
        """Return the mean distance of the features to the anchors of their classes, a scalar.

        A subclass with another distance maps features and anchors to where it is the Euclidean one.

        Args:
            feature: See :func:`sar_mm.ops.pull_loss`.
            semantic_anchors: S, (K, C).
            options: ``target``, ``ignore_index``, ``gate`` and ``weight`` of :func:`sar_mm.ops.pull_loss`.
        """
        scale = 1.0
        if self.distance == 'cosine':  # ||a - b||^2 is 2 - 2 cos of unit vectors
            feature = F.normalize(at_least_float32(feature), dim=1)
            semantic_anchors = F.normalize(semantic_anchors, dim=1)
            scale = semantic_anchors.shape[1] / 2
        options.update(class_balanced=self.class_balanced, sync_valid=self.sync_valid)
        return scale * pull_loss(feature=feature, anchors=semantic_anchors, **options)


@MODELS.register_module()
class LogitAdjustedSARLoss(SARLoss, TakesClassCounts):
    """SARLoss that classifies anchors as :class:`LogitAdjustedLoss` does features: by ``z_k + tau * log(n_k / sum n)``.

    An anchor of a rare class has to be classified with a larger margin. The gate takes the logits as they are.

    Args:
        tau: Strength of the adjustment, at least 0.
        class_counts: Images or pixels of every class, K of them. None: :class:`ClassCountsHook` sets them.
        kwargs: See :class:`SARLoss`.

    Raises:
        ValueError: See :class:`SARLoss`; no counts at the first step, or not K.

    Example::

        anchor_head=dict(loss=dict(type='LogitAdjustedSARLoss'))
        custom_hooks=[dict(type='ClassCountsHook')]
    """

    def __init__(self, tau: float = 1.0, class_counts: Optional[Sequence[float]] = None, **kwargs) -> None:
        super().__init__(**kwargs)
        check_weight('tau', tau)
        self.tau = tau
        self.set_own_counts(class_counts)

    def anchor_costs(self, logits: Tensor, first: int = 0) -> Tensor:
        return super().anchor_costs(adjust_logits(logits, self.counts_for(logits), self.tau), first)
