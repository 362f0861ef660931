from typing import Dict, Optional

from torch import Tensor, nn

from ...checks import check, check_flag, check_probability, check_weight, is_number
from ...ops import anchor_cross_entropy, pull_loss, separation_loss
from ...registry import MODELS


@MODELS.register_module()
class SARLoss(nn.Module):
    """The two losses that semantic anchors add to a task: ``1.0 * L_anchor + 0.1 * L_pull`` by default.

    Args:
        anchor_weight: Weight of the anchor classification loss.
        pull_weight: Weight of the pull of the features to their anchors.
        confidence: Anchors classified with a higher probability are left out of the anchor classification loss.
        class_balanced: Average the pull within each class first, then over the classes present.
        separation_weight: Weight of a penalty on pairs of embedded anchors that lie close to each other.
        separation_margin: The cosine from which on they do.
        sync_valid: Take the pull's mean over the valid features of all processes, instead of each process over its
            own: the only option that communicates, one number per forward pass (of a ``class_balanced`` pull, K).

    Raises:
        ValueError: A negative weight, a confidence outside (0, 1), a margin outside [-1, 1].

    Example::

        anchor_head=dict(loss=dict(pull_weight=0.5))
    """

    def __init__(
        self,
        anchor_weight: float = 1.0,
        pull_weight: float = 0.1,
        confidence: float = 0.9,
        class_balanced: bool = False,
        separation_weight: float = 0.0,
        separation_margin: float = 0.0,
        sync_valid: bool = False,
    ) -> None:
        super().__init__()
        check_weight('anchor_weight', anchor_weight)
        check_weight('pull_weight', pull_weight)
        check_probability('confidence', confidence, ends=False)
        self.anchor_weight = anchor_weight
        self.pull_weight = pull_weight
        check_weight('separation_weight', separation_weight)
        margin = separation_margin
        check(is_number(margin) and -1 <= margin <= 1, 'separation_margin', margin, 'a number in [-1, 1]')
        check_flag('class_balanced', class_balanced)
        check_flag('sync_valid', sync_valid)
        self.confidence = confidence
        self.class_balanced = class_balanced
        self.separation_weight = separation_weight
        self.separation_margin = separation_margin
        self.sync_valid = sync_valid

    def forward(
        self,
        logits: Tensor,
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
            logits: (K, K), the task classifier's answer to the embedded anchors.
            embedded: A, (K, C), the embedded anchors.
            feature: See :func:`sar_mm.ops.pull_loss`.
            target: See :func:`sar_mm.ops.pull_loss`.
            semantic_anchors: S, (K, C).
            gate: 1.0 where features are pulled in this step, else 0.0; a scalar, or one per class, (K,).
            ignore_index: See :func:`sar_mm.ops.pull_loss`.
            weight: Weights of the features in the pull, see :func:`sar_mm.ops.pull_loss`.
        """
        pull = pull_loss(
            feature,
            target,
            semantic_anchors,
            ignore_index,
            gate=gate if gate.dim() else None,
            class_balanced=self.class_balanced,
            weight=weight,
            sync_valid=self.sync_valid,
        )
        losses = dict(
            loss_anchor=self.anchor_weight * anchor_cross_entropy(logits, self.confidence),
            # Filled rather than multiplied: the pull of huge features is infinite, and 0 times that, NaN.
            loss_pull=self.pull_weight * (pull if gate.dim() else pull.masked_fill(gate == 0, 0.0)),
        )
        if self.separation_weight > 0:
            losses.update(loss_separation=self.separation_weight * separation_loss(embedded, self.separation_margin))
        return losses
