import warnings
from contextlib import nullcontext
from typing import Any, ContextManager, Dict, Optional, Tuple

import torch
from mmengine.dist import get_world_size
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..checks import check_choice, check_config, check_flag, check_probability, check_seed
from ..ops import anchor_scores, pairwise_cosine
from ..ops.separation import row_blocks
from ..registry import ANCHORS, MODELS
from .feature_head import Classify, FeatureHead, Losses
from .losses import SARLoss
from .projector import AnchorProjector

MATMUL_DTYPES = ('auto', 'float32', 'bfloat16')
MANY = 2**28  # K C^2 from which on bfloat16 saves time: float32 takes a quarter of a millisecond on an A100


@MODELS.register_module()
class SemanticAnchorHead(FeatureHead):
    """Semantic anchors of one task classifier: embeds, classifies and averages them, and pulls features to them.

    ``type='SAR<Head>'`` builds one inside the head with the settings of the paper; ``anchor_head=dict(...)`` there
    overrides any of them. It takes part in training only.

    Args:
        num_classes: K, at least 2.
        channels: C, the channels of the features that the task classifier receives.
        anchors: The predefined anchors, one of :mod:`sar_mm.anchors`; without a type, GaussianAnchors.
        loss: The losses; without a type, SARLoss.
        momentum: Share of the old semantic anchors in their moving average, the paper's m; that of a moving average of
            mmengine is the share of the new value.
        gate_threshold: Features are pulled, and the average moves, in steps in which every anchor is classified right
            with a probability above this one: the gate is open.
        gate_per_class: Open the gate of a class once its own anchor is classified so, whatever the others do: with
            many classes one stubborn anchor would switch off all.
        ignore_index: Label that is not pulled. None: none but those outside [0, K).
        seed: Seed of the projector's weights. Not the anchors' default: the same random stream should not make both.
        projector: Options of the projector: ``dict(channels=256)`` makes its hidden layers narrower than the features.
        matmul_dtype: Of the matrix products in the projector and in the classification of the anchors: ``'float32'``,
            ``'bfloat16'`` by autocast, or ``'auto'``, bfloat16 where K C^2 is large and the GPU has units for it.
            Norms, softmax, average and losses are float32.

    The buffers are float32 whatever the dtype of the model is: ``anchors`` P, (K, D), ``semantic_anchors`` S, (K, C),
    and ``initialized``, (K,), 1 for the classes whose S has started. Three are for :class:`.AnchorMonitorHook` alone,
    and not in checkpoints: ``confidence``, (K,), the probability that each anchor had for its class in the last
    training step, ``right``, (K,), 1 where no other class had a larger one, and ``steps_shut``, (K,), the steps since
    the gate of a class was open.

    Raises:
        ValueError: An argument out of its range, an unknown kind of anchors, anchors that do not fit K or D.

    Example::

        decode_head=dict(
            type='SARFCNHead',
            anchor_head=dict(
                anchors=dict(type='SimplexETFAnchors'),
                momentum=0.99,
                loss=dict(pull_weight=0.5)))
    """

    anchors: Tensor
    semantic_anchors: Tensor
    initialized: Tensor
    confidence: Tensor
    right: Tensor
    steps_shut: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        anchors: dict = dict(type='GaussianAnchors'),
        loss: dict = dict(type='SARLoss'),
        momentum: float = 0.999,
        gate_threshold: float = 0.8,
        gate_per_class: bool = False,
        ignore_index: Optional[int] = 255,
        seed: int = 1,
        projector: dict = dict(),
        matmul_dtype: str = 'auto',
    ) -> None:
        super().__init__(num_classes, channels, ignore_index)
        check_probability('momentum', momentum, ends=True)
        check_probability('gate_threshold', gate_threshold, ends=False)
        check_flag('gate_per_class', gate_per_class)
        check_seed(seed)
        check_choice('matmul_dtype', matmul_dtype, MATMUL_DTYPES)
        check_config('anchors', anchors, "dict(type='GaussianAnchors')")
        check_config('loss', loss, 'dict(pull_weight=0.1)')
        check_config('projector', projector, 'dict(channels=256)')
        for name in projector:
            check_choice(f'projector.{name}', name, ['channels'])
        self.momentum = momentum
        self.gate_threshold = gate_threshold
        self.gate_per_class = gate_per_class
        self.matmul_dtype = matmul_dtype
        self.loss_module = MODELS.build({'type': 'SARLoss', **loss})
        self.anchors_config = {'type': 'GaussianAnchors', **anchors}
        self.missing_file: Optional[str] = None  # says what is missing
        self.other_anchors: Optional[str] = None  # says how those of a checkpoint differ, until training starts
        make_anchors = ANCHORS.build(self.anchors_config)
        try:
            predefined = make_anchors(num_classes, channels)
        except FileNotFoundError as error:
            # To test, export or resume a model needs no file: its checkpoint has the anchors, and says what D is.
            predefined, self.missing_file = torch.zeros(num_classes, channels, dtype=torch.float32), str(error)
        self.register_buffer('anchors', predefined)
        self.projector = AnchorProjector(predefined.shape[1], channels, seed, **projector)
        float32: dict = dict(dtype=torch.float32, device='cpu')
        self.register_buffer('semantic_anchors', torch.zeros(num_classes, channels, **float32))
        self.register_buffer('initialized', torch.zeros(num_classes, **float32))
        for name in ('confidence', 'right', 'steps_shut'):
            self.register_buffer(name, torch.zeros(num_classes, **float32), persistent=False)

    @property
    def has_shared_gradients(self) -> bool:
        """Whether the projector has the same gradients in all processes: no feature takes part in them.

        This is so for the step of this class and the ``forward`` of SARLoss; a subclass may change either.
        """
        kind = type(self), type(self.loss_module)
        return kind[0].step is SemanticAnchorHead.step and kind[1].forward is SARLoss.forward

    def loss(self, *args, **kwargs) -> Losses:
        """Advance the anchors by one training step and return its losses; see :meth:`FeatureHead.loss`.

        Returns:
            ``loss_anchor``, ``loss_pull`` and, if it has a weight, ``loss_separation``; and for the log ``anchor_acc``
            (share of anchors classified right), ``anchor_conf`` (the smallest probability that an anchor has for its
            class), ``anchor_gate`` (1.0 where the gate is open; of gates per class, the share that is), ``anchor_cos``
            and ``anchor_cos_mean`` (largest and mean pairwise cosine of the embedded anchors, which are there from the
            first step on; the semantic anchors, their average, start when the gate opens).

        Raises:
            FileNotFoundError: The predefined anchors are those of a file that is not there, and no checkpoint had them.
        """
        if self.missing_file is not None:
            raise FileNotFoundError(self.missing_file)
        return super().loss(*args, **kwargs)

    def step(self, feature: Tensor, target: Tensor, classify: Classify, weight: Optional[Tensor]) -> Losses:
        with self._precision():
            embedded = self.projector(self.anchors)
            costs, right, probability = self._classify(embedded, classify)
        is_open = right & (probability > self.gate_threshold)
        if not self.gate_per_class:
            is_open = is_open.all()
        semantic_anchors = self._average(embedded.detach(), is_open, self.keeps_state)
        gate = is_open.float()
        losses = self.loss_module(
            anchor_costs=costs,
            embedded=embedded,
            feature=feature,
            target=target,
            semantic_anchors=semantic_anchors,
            gate=gate,
            ignore_index=self.ignore_index,
            weight=weight,
        )
        if self.keeps_state:
            self.confidence.copy_(probability.nan_to_num())  # NaN opens no gate
            self.right.copy_(right)
            self.steps_shut.add_(1).mul_(1 - gate)
        cosine, mean_cosine = pairwise_cosine(embedded.detach())
        losses.update(
            anchor_acc=right.float().mean(),
            anchor_conf=probability.min(),
            anchor_gate=gate.mean(),
            anchor_cos=cosine,
            anchor_cos_mean=mean_cosine,
        )
        return losses

    def _precision(self) -> ContextManager:
        """Return the context of the matrix products of the anchors; autocast is off around it."""
        is_bfloat16 = self.matmul_dtype == 'bfloat16'
        if self.matmul_dtype == 'auto' and self.anchors.is_cuda and self.num_classes * self.channels**2 >= MANY:
            # Ampere or newer; on ROCm, every GPU that PyTorch supports.
            is_bfloat16 = torch.cuda.get_device_properties(self.anchors.device).major >= 8
        return torch.autocast(self.anchors.device.type, torch.bfloat16) if is_bfloat16 else nullcontext()

    def _classify(self, embedded: Tensor, classify: Classify) -> Tuple[Tensor, Tensor, Tensor]:
        """Return the cross-entropy of each anchor, whether it is classified right, and the probability of its class.

        With more than 4,096 classes, logits are made block by block, and again in the backward pass: those of all
        anchors would take more memory than the model.
        """

        def scores(embedded: Tensor, rows: slice) -> Tuple[Tensor, Tensor, Tensor]:
            logits = classify(embedded[rows]).float()
            costs = self.loss_module.anchor_costs(logits, rows.start)
            return (costs, *anchor_scores(logits.detach(), rows.start))

        blocks = list(row_blocks(len(embedded)))
        if len(blocks) == 1:
            return scores(embedded, blocks[0])
        parts = [checkpoint(scores, embedded, rows, use_reentrant=False) for rows in blocks]
        costs, right, probability = (torch.cat(each) for each in zip(*parts))
        return costs, right, probability

    @torch.no_grad()
    def _average(self, embedded: Tensor, is_open: Tensor, keep: bool) -> Tensor:
        """Return the semantic anchors after this step, and ``keep`` them or not."""
        started = self.initialized > 0
        # A model that is averaged since before its anchors started, buffers included, has both averaged alike.
        current = self.semantic_anchors / torch.where(started, self.initialized, 1.0).view(-1, 1)
        average = torch.lerp(embedded.float(), current, self.momentum * started.float().view(-1, 1))
        # A new tensor for the loss: the buffer may change again before the backward pass.
        average = torch.where(is_open.view(-1, 1), average, current)
        if keep:
            self.semantic_anchors.copy_(average)
            self.initialized.copy_((started | is_open).float())
        return average

    def train(self, mode: bool = True) -> 'SemanticAnchorHead':
        """Warn once, as training begins, where a checkpoint was loaded that has other anchors than the config.

        Not when it is loaded: to test or export a model, anchors do not matter.
        """
        if mode and self.other_anchors is not None:
            warnings.warn(f'{self.other_anchors}: those of the config are used, and S restarts', stacklevel=2)
            self.other_anchors = None
        return super().train(mode)

    def compare_anchors(self, anchors: Tensor) -> Optional[str]:
        """Return None where these predefined anchors, of a checkpoint, are those of the config, else what differs.

        They differ by more than a rounding to half precision: in their kind, seed, file, number or dimension.
        """
        if self.missing_file is not None or anchors.is_meta or self.anchors.is_meta:
            return None
        own, given = self.anchors.cpu(), anchors.detach().cpu().float()
        if own.shape == given.shape and torch.allclose(own, given, rtol=1e-2, atol=1e-3):
            return None
        options = ', '.join(f'{name}={value!r}' for name, value in self.anchors_config.items())
        return (
            f'the predefined anchors of the config, dict({options}), {_describe(own)}, are not those of the '
            f'checkpoint, {_describe(given)}'
        )

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args) -> None:
        """Load the buffers that are only right together: S with its predefined anchors, ``initialized`` with S."""
        names = [prefix + name for name in ('anchors', 'semantic_anchors', 'initialized')]
        anchors, average, started = (state_dict.get(name) for name in names)
        is_anew = started is not None and (average is None or average.shape != self.semantic_anchors.shape)
        if anchors is not None and self.missing_file is not None and len(anchors) == len(self.anchors):
            self._take_dim(anchors)
        elif anchors is not None:
            self.other_anchors = self.compare_anchors(anchors)
            if self.other_anchors is not None:
                state_dict[names[0]], is_anew = self.anchors, True
        if is_anew:
            state_dict[names[2]] = torch.zeros_like(self.initialized)
        elif started is not None:  # one flag for all where the gate was one for all, in checkpoints of 0.1.0
            state_dict[names[2]] = started.float().expand(self.initialized.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _take_dim(self, anchors: Tensor) -> None:
        """Take D from the anchors of a checkpoint, in place of those of a file that is not there."""
        if anchors.shape != self.anchors.shape:
            first: Any = self.projector[0].weight
            first.data = first.data.new_zeros(len(first), anchors.shape[1])
            self.anchors = self.anchors.new_zeros(anchors.shape)
            if get_world_size() > 1:  # DDP knows the parameters by the sizes that they were built with
                return
        self.missing_file = None

    def extra_repr(self) -> str:
        return (
            f'num_classes={self.num_classes}, channels={self.channels}, dim={self.anchors.shape[1]}, '
            f'momentum={self.momentum}, gate_threshold={self.gate_threshold}, ignore_index={self.ignore_index}'
        )


def _describe(anchors: Tensor) -> str:
    return f'{tuple(anchors.shape)} with a mean cosine of {pairwise_cosine(anchors)[1].item():.3f}'
