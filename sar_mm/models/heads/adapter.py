"""What a stock head is mixed with to get semantic anchors."""

from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import check, check_config
from ...registry import MODELS
from ..feature_head import FeatureHead

Recorded = Tuple[Tensor, bool]  # a feature, and whether gradients were recorded then
OWN_LOSSES = ('loss_anchor', 'loss_pull', 'loss_separation')


def classify_maps(layer: nn.Module, maps: Tensor) -> Tensor:
    """Put maps of one position, (K, C, 1, 1) or (K, C, 1), through a convolutional classifier: (K, outputs)."""
    if type(layer) in (nn.Conv1d, nn.Conv2d) and layer.weight[0].numel() == maps.shape[1]:
        # As a convolution it would be of less than float32 (TF32) and, where cuDNN looks for the fastest kernel, not of
        # the same kernel in every process: one gate might open and another stay shut.
        return F.linear(maps.flatten(1), layer.weight.flatten(1), layer.bias)
    return layer(maps).flatten(1)


class HeadAdapter:
    """What all SAR heads share: a mixin in front of the stock head, which stays as it is.

    A subclass says where the stock head keeps its classifier and its feature:

    - ``classifier`` is the dotted name of the layer that classifies the features (or, where ``classifier_layer`` is
      overridden, what to call it), and ``feature`` says in words what they are;
    - ``classify`` puts embedded anchors through the classifier;
    - the stock head's methods are overridden to run its loss inside ``recording()``, to call ``record`` there with the
      classifier's input, before its dropout, and to add ``anchor_losses`` to what the loss returns.

    Args:
        anchor_head: Options of :class:`SemanticAnchorHead` that differ from what follows from the head.

    Raises:
        TypeError: The stock head has no such classifier.
        ValueError: An option of the anchor head that is out of its range or contradicts the head, or a loss of the
            stock head that has the name of one of the anchor head's.
    """

    classifier: str
    feature: str

    def __init__(self, *args, anchor_head: Optional[dict] = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._features: Optional[List[Recorded]] = None
        anchor_head = {} if anchor_head is None else anchor_head
        check_config('anchor_head', anchor_head, 'dict(momentum=0.999)')
        self.check_loss_names()
        self.anchor_head = self.build_anchor_head(anchor_head)

    def check_loss_names(self) -> None:
        """Raise a ValueError where a loss of the stock head would be overwritten by the anchor head's."""
        losses = [getattr(self, name, None) for name in ('loss_decode', 'loss_module')]
        for loss in (loss for each in losses for loss in (each if isinstance(each, nn.ModuleList) else [each])):
            name = getattr(loss, 'loss_name', '')
            check(
                name not in OWN_LOSSES and not name.startswith('anchor_'),
                'loss_name',
                name,
                f'another name than those of the anchor head, {", ".join(OWN_LOSSES)} and anchor_*',
            )

    def add_losses(self, losses: Dict[str, Tensor], anchor_losses: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Return the losses of the stock head and those of its anchors; a ValueError where names would collide."""
        both = sorted(losses.keys() & anchor_losses.keys())
        if both:
            raise ValueError(
                f'{type(self).__name__} returns {", ".join(both)}, the names of losses of the anchor head: give the '
                'losses of the head other names'
            )
        return {**losses, **anchor_losses}

    @property
    def classifier_layer(self) -> nn.Module:
        return self.get_submodule(self.classifier)

    @property
    def anchor_ignore_index(self) -> Optional[int]:
        """Label that is not pulled; None: there is none."""
        raise NotImplementedError(f'the HeadAdapter of {type(self).__name__} has no `anchor_ignore_index`')

    def classify(self, anchors: Tensor) -> Tensor:
        """Classify embedded anchors, (K, C) -> (K, K), with the task classifier but without its dropout."""
        raise NotImplementedError(f'the HeadAdapter of {type(self).__name__} has no `classify`')

    def build_anchor_head(self, options: dict) -> nn.Module:
        """Build the anchor head, or heads, of this head."""
        try:
            layer = self.classifier_layer
        except AttributeError as error:
            raise TypeError(
                f'{type(self).__name__} has no layer `{self.classifier}` that could classify its anchors: write a '
                'HeadAdapter that names its classifier, and pass it to with_semantic_anchors()'
            ) from error
        return self.build_anchors_of(layer, options)

    def build_anchors_of(self, layer: nn.Module, options: dict) -> nn.Module:
        """Build the anchor head of one classifier layer, linear or a 1x1 convolution."""
        sizes = [getattr(layer, name, None) for name in ('out_features', 'in_features', 'out_channels', 'in_channels')]
        sizes = [size for size in sizes if size is not None]
        if len(sizes) != 2:
            raise TypeError(
                f'The classifier of {type(self).__name__} is a {type(layer).__name__}, neither a linear layer nor a '
                'convolution: write a HeadAdapter for this head, and pass it to with_semantic_anchors()'
            )
        outputs, channels = sizes
        derived = dict(num_classes=self.num_anchors(outputs), channels=channels)
        for name, value in derived.items():
            given = options.get(name, value)
            check(given == value, f'anchor_head.{name}', given, f'{value}, as in the head')
        settings = dict(type='SemanticAnchorHead', ignore_index=self.anchor_ignore_index, **derived)
        return MODELS.build({**settings, **options})

    def num_anchors(self, outputs: int) -> int:
        """Return K for the number of outputs of the classifier."""
        return outputs

    def init_weights(self) -> None:
        """Initialise the stock head's weights; those of the anchor head come from its own seed."""
        anchor_head = self._modules.pop('anchor_head', None)  # None: the stock constructor calls this
        try:
            super().init_weights()
        finally:
            if anchor_head is not None:
                self._modules['anchor_head'] = anchor_head

    @contextmanager
    def recording(self, labels: Optional[Callable[[], Tensor]] = None) -> Iterator[List[Recorded]]:
        """Keep the features given to ``record`` while the context lasts, and not longer: they hold a graph.

        Args:
            labels: Returns the labels of the batch, for an error that one of them causes.
        """
        self._features = features = []
        try:
            yield features
        except IndexError as error:
            if labels is not None:
                self.explain_label(error, labels())
            raise
        finally:
            self._features = None

    def explain_label(self, error: IndexError, labels: Tensor) -> None:
        """Raise an IndexError that names the label which an IndexError, all that PyTorch says on a CPU, comes from.

        Return where all labels are classes.
        """
        num_classes = next(part.num_classes for part in self.anchor_head.modules() if isinstance(part, FeatureHead))
        is_wrong = (labels < 0) | (labels >= num_classes)
        if self.anchor_ignore_index is not None:
            is_wrong &= labels != self.anchor_ignore_index
        if is_wrong.any():
            raise IndexError(
                f'{error}: the label {labels[is_wrong][0].item()} is no class of {type(self).__name__}, which has '
                f'{num_classes}: check num_classes, reduce_zero_label and ignore_index; CheckedLoading in the pipeline '
                'names the file'
            ) from error

    def record(self, feature: Tensor) -> None:
        """Note the input of the task classifier, if in ``recording()``."""
        if self._features is not None:
            self._features.append((feature, torch.is_grad_enabled()))

    def record_input(self, layer: nn.Module, inputs: tuple) -> None:
        """Record what a layer is given; a forward pre-hook. A method, not a closure, lives through ``deepcopy``."""
        self.record(inputs[0])

    def anchor_losses(
        self, features: Optional[List[Recorded]], target: Tensor, weight: Optional[Tensor] = None
    ) -> Dict[str, Tensor]:
        """Return the losses of the anchor head for the one recorded feature."""
        (feature,) = self.check_features(features, [self.anchor_head])
        return self.anchor_head.loss(feature, target, self.classify, weight)

    def check_features(self, features: Optional[List[Recorded]], anchor_heads: List[nn.Module]) -> List[Tensor]:
        """Return the recorded features if there is one for each of these anchor heads.

        Raises:
            RuntimeError: They were not seen, or too often, or are not what the classifier takes.
        """
        name = type(self).__name__
        if features is None:
            raise RuntimeError(
                f'{name} did not see its feature, as loss_by_feat() was called without loss(): call loss(), or wrap '
                f'forward() and loss_by_feat() in `with head.recording():`; where {name} is a part of another head, '
                'put SAR in front of the type of that head instead'
            )
        expected = [each.channels for each in anchor_heads]
        if [feature.shape[1] for feature, _ in features] != expected:
            seen = ', '.join(str(tuple(feature.shape)) for feature, _ in features) or 'none'
            channels = ' and '.join(f'one of {each} channels' for each in expected)
            raise RuntimeError(
                f'{name} should see a feature per step, {channels}, the input of its classifier `{self.classifier}`, '
                f'but saw {seen}: write a HeadAdapter for this head, and pass it to with_semantic_anchors()'
            )
        if torch.is_grad_enabled() and not all(with_grad for _, with_grad in features):
            raise RuntimeError(
                f'{name} sees its features without gradients: activation checkpointing with use_reentrant=True runs '
                'the head twice; leave the head out of it, or use the kind that is not reentrant'
            )
        return [feature for feature, _ in features]
