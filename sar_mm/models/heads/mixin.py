"""What a stock head is mixed with to get semantic anchors."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ...checks import UsageError, check, check_config
from ...names import ANCHOR_LOSSES
from ...registry import MODELS
from ..feature_head import FeatureHead
from ..module_lists import as_modules

NAME_IT = "name the layer that classifies, as in with_semantic_anchors(MyHead, classifier='layers.fc')"


@dataclass
class Recording:
    """What the classifiers of a head were given in one forward pass."""

    features: List[Tensor] = field(default_factory=list)
    with_grad: bool = True  # whether autograd recorded all of them
    dropout: Optional[Tuple[Tensor, Tensor]] = None  # input and output of the last dropout layer that ran


class SARHeadMixin:
    """Base in front of a stock head class that adds semantic anchors; the stock head's own code stays as it is.

    The feature is the input of the layers in ``feature_layers()``, or the input of the dropout layer that made it. A
    subclass for the heads of a toolbox runs the stock loss in ``recording()`` and adds ``anchor_losses()`` to it.

    Args:
        anchor_head: Options of :class:`SemanticAnchorHead` that differ from what follows from the head.

    Raises:
        TypeError: The stock head has no such classifier.
        ValueError: An option of the anchor head that is out of its range or contradicts the head, or a loss of the
            stock head that has the name of one of the anchor head's.
    """

    # Path, or paths, of the classifier layers in the head, such as 'layers.-1.fc', in which -1 is the last of a list.
    classifier: Union[str, Tuple[str, ...]]
    anchor_head: Any  # a FeatureHead, or a ModuleDict of them
    feature = 'input of the classifier, before its dropout'  # for the docs

    def __init__(self, *args, anchor_head: Optional[dict] = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._recording: Optional[Recording] = None
        anchor_head = {} if anchor_head is None else anchor_head
        check_config('anchor_head', anchor_head, 'dict(momentum=0.999)')
        self.check_loss_names()
        self.anchor_head = self.build_anchor_head(anchor_head)
        # Methods rather than closures: deepcopy() binds them to the copy.
        for layer in self.feature_layers():
            layer.register_forward_pre_hook(self.record_input)
        for layer in self.modules():
            if isinstance(layer, _DropoutNd):
                layer.register_forward_hook(self.record_dropout)

    @property
    def classifier_layers(self) -> List[nn.Module]:
        """The layers that ``classifier`` names."""
        paths = (self.classifier,) if isinstance(self.classifier, str) else self.classifier
        return [self._layer_at(path) for path in paths]

    @property
    def classifier_layer(self) -> Optional[nn.Module]:
        """The (first) layer that classifies the anchors; None where each classifier has anchors of its own."""
        return self.classifier_layers[0]

    def feature_layers(self) -> List[nn.Module]:
        """Return the layers whose inputs are the features; override it where these are not the classifiers."""
        return self.classifier_layers

    @property
    def anchor_ignore_index(self) -> Optional[int]:
        """Label that is not pulled; None: there is none."""
        raise NotImplementedError(f'the mixin of {type(self).__name__} has no `anchor_ignore_index`')

    def classify(self, anchors: Tensor) -> Tensor:
        """Classify embedded anchors, (K, C) -> (K, K), with the task classifier but without its dropout."""
        return classify_rows(self.classifier_layer, anchors)

    def num_anchors(self, outputs: int) -> int:
        """Return K for the number of outputs of the classifier."""
        return outputs

    # ----- Construction

    def check_loss_names(self) -> None:
        """Raise a ValueError where a loss of the stock head would be overwritten by the anchor head's."""
        losses = [loss for name in ('loss_decode', 'loss_module') for loss in as_modules(getattr(self, name, None))]
        for loss in losses:
            name = getattr(loss, 'loss_name', '')
            is_other = name not in ANCHOR_LOSSES and not name.startswith('anchor_')
            valid = f'another name than those of the anchor head, {", ".join(ANCHOR_LOSSES)} and anchor_*'
            check(is_other, 'loss_name', name, valid)

    def build_anchor_head(self, options: dict) -> nn.Module:
        """Build the anchor head, or heads, of this head."""
        return self.build_anchors_of(self.classifier_layer, options)

    def build_anchors_of(self, layer: nn.Module, options: dict) -> nn.Module:
        """Build the anchor head of one classifier layer, linear or a convolution."""
        sizes = [getattr(layer, name, None) for name in ('out_features', 'in_features', 'out_channels', 'in_channels')]
        sizes = [size for size in sizes if size is not None]
        if len(sizes) != 2:
            raise TypeError(
                f'The classifier of {type(self).__name__} is a {type(layer).__name__}, neither a linear layer nor a '
                f'convolution: {NAME_IT}'
            )
        outputs, channels = sizes
        derived = dict(num_classes=self.num_anchors(outputs), channels=channels)
        for name, value in derived.items():
            given = options.get(name, value)
            check(given == value, f'anchor_head.{name}', given, f'{value}, as in the head')
        settings = dict(type='SemanticAnchorHead', ignore_index=self.anchor_ignore_index, **derived)
        return MODELS.build({**settings, **options})

    def _layer_at(self, path: str) -> nn.Module:
        layer: Any = self
        try:
            for name in path.split('.'):
                layer = layer[int(name)] if name.lstrip('-').isdigit() else getattr(layer, name)
        except (AttributeError, IndexError) as error:
            name = type(self).__name__
            raise TypeError(f'{name} has no layer `{path}` that could classify its anchors: {NAME_IT}') from error
        return layer

    # ----- Features

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Record the features while the context lasts, and not longer: they hold a graph."""
        self._recording = recording = Recording()
        try:
            yield recording
        finally:
            self._recording = None

    def record(self, feature: Tensor) -> None:
        """Add a feature to the recording, if there is one."""
        if self._recording is not None:
            self._recording.features.append(feature)
            self._recording.with_grad &= torch.is_grad_enabled()

    def record_input(self, layer: nn.Module, inputs: Tuple[Tensor, ...]) -> None:
        """Forward pre-hook of the feature layers: record the input, as it was before dropout."""
        if self._recording is not None:
            before, after = self._recording.dropout or (None, None)
            self.record(before if inputs[0] is after else inputs[0])

    def record_dropout(self, layer: nn.Module, inputs: Tuple[Tensor, ...], output: Tensor) -> None:
        """Forward hook of the dropout layers."""
        if self._recording is not None:
            self._recording.dropout = inputs[0], output

    def check_features(self, recording: Optional[Recording], channels: List[int]) -> List[Tensor]:
        """Return the recorded features if there is one for each number of channels.

        Raises:
            RuntimeError: They were not seen, or too often, or are not what the classifier takes.
        """
        name = type(self).__name__
        if recording is None:
            raise RuntimeError(
                f'{name} did not see its feature, as loss_by_feat() was called without loss(): call loss(), or wrap '
                f'forward() and loss_by_feat() in `with head.recording():`; where {name} is a part of another head, '
                'put SAR in front of the type of that head instead'
            )
        if [feature.shape[1] for feature in recording.features] != channels:
            seen = ', '.join(str(tuple(feature.shape)) for feature in recording.features) or 'none'
            expected = ' and '.join(f'one of {each} channels' for each in channels)
            raise RuntimeError(
                f'{name} should see a feature per step, {expected}, the input of its classifier `{self.classifier}`, '
                f'but saw {seen}: {NAME_IT}, or override feature_layers() in a mixin of your own'
            )
        if torch.is_grad_enabled() and not recording.with_grad:
            raise RuntimeError(
                f'{name} sees its features without gradients: activation checkpointing with use_reentrant=True runs '
                'the head twice; leave the head out of it, or use the kind that is not reentrant'
            )
        return recording.features

    # ----- Losses

    def anchor_losses(
        self, recording: Optional[Recording], target: Tensor, weight: Optional[Tensor] = None
    ) -> Dict[str, Tensor]:
        """Return the losses of the anchor head; the features of several classifiers have the same targets."""
        number = len(self.classifier_layers)
        features = self.check_features(recording, [self.anchor_head.channels] * number)
        return self.anchor_head.loss(features, [target] * number, self.classify, [weight] * number)

    def add_losses(self, losses: Dict[str, Tensor], anchor_losses: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Return the losses of the stock head and those of its anchors; a ValueError where names would collide."""
        both = sorted(losses.keys() & anchor_losses.keys())
        if both:
            raise UsageError(
                f'{type(self).__name__} returns {", ".join(both)}, the names of losses of the anchor head: give the '
                'losses of the head other names'
            )
        return {**losses, **anchor_losses}

    @contextmanager
    def explaining_labels(self, labels: Callable[[], Tensor]) -> Iterator[None]:
        """Name the label that an IndexError comes from, if one does; on a CPU, PyTorch does not say it."""
        try:
            yield
        except IndexError as error:
            num_classes: int = next(
                each.num_classes for each in self.anchor_head.modules() if isinstance(each, FeatureHead)
            )
            given = labels()
            is_wrong = (given < 0) | (given >= num_classes)
            if self.anchor_ignore_index is not None:
                is_wrong &= given != self.anchor_ignore_index
            if not is_wrong.any():
                raise
            raise IndexError(
                f'{str(error).rstrip(".")}: the label {given[is_wrong][0].item()} is no class of '
                f'{type(self).__name__}, which has {num_classes}: check num_classes, reduce_zero_label and '
                'ignore_index; CheckedLoading in the pipeline names the file'
            ) from error


def classify_rows(layer: Any, rows: Tensor) -> Tensor:
    """Put rows, (K, C), through a linear or convolutional classifier: (K, outputs)."""
    if type(layer) in (nn.Conv1d, nn.Conv2d) and layer.weight[0].numel() == rows.shape[1]:
        # As a convolution it would be of less than float32 (TF32) and, where cuDNN looks for the fastest kernel, not of
        # the same kernel in every process: one gate might open and another stay shut.
        return F.linear(rows, layer.weight.flatten(1), layer.bias)
    positions = [1] * (layer.weight.dim() - 2) if hasattr(layer, 'weight') else []
    return layer(rows.reshape(*rows.shape, *positions)).flatten(1)
