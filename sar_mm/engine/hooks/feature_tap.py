from typing import Any, List, Optional, Tuple

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...checks import UsageError, check
from ...registry import HOOKS

# Where a model keeps its classifier, SAR heads first; -1 is the last head of a cascade.
_PLACES = (
    'decode_head.classifier_layer',
    'decode_head.-1.classifier_layer',
    'head.classifier_layer',
    'decode_head.conv_seg',
    'decode_head.-1.conv_seg',
    'head.fc',
    'head.layers.head',
    'head.head',
)


@HOOKS.register_module()
class FeatureTapHook(Hook):
    """Passes the classifier's input to metrics during validation and testing, of stock and SAR models.

    Every metric with a method ``observe(feature)``, such as FeatureGeometry, gets the classifier's input, (N, C) or
    (N, C, H, W), once per forward pass; dropout is inactive then. Before the first one, its
    ``set_reference(classifier_weight, anchors)`` gets the classifier's weight (K, C) and the semantic anchors (K, C),
    or None where the model has none or they were never set. In a semi-supervised model, the part that predicts is
    observed; in a TeacherStudentValLoop both are, each with its own reference.

    Args:
        layer: Dotted name of the classifier in the model, in a semi-supervised one in the student. None: what a SAR
            head names as its own, else the first that exists of ``decode_head.conv_seg`` (of the last head of a
            cascade), ``head.fc``, ``head.layers.head`` and ``head.head``.

    Raises:
        ValueError: The model has no such layer.

    Example::

        custom_hooks = [dict(type='FeatureTapHook')]
        test_evaluator = [dict(type='Accuracy'), dict(type='FeatureGeometry')]
    """

    def __init__(self, layer: Optional[str] = None) -> None:
        check(layer is None or isinstance(layer, str), 'layer', layer, 'the dotted name of a layer, or None')
        self.layer = layer
        self._handles: List[RemovableHandle] = []

    def before_train(self, runner: Runner) -> None:
        if runner.val_loop is not None and hasattr(runner.val_loop, 'evaluator'):
            # A missing layer should end the training now, not at its first validation.
            self._attach(runner.model, runner.val_loop.evaluator.metrics)
            self._detach()

    def before_val(self, runner: Runner) -> None:
        self._attach(runner.model, runner.val_evaluator.metrics)

    def after_val(self, runner: Runner) -> None:
        self._detach()

    def before_test(self, runner: Runner) -> None:
        self._attach(runner.model, runner.test_evaluator.metrics)

    def after_test(self, runner: Runner) -> None:
        self._detach()

    def _attach(self, model: nn.Module, metrics: List) -> None:
        self._detach()  # an error leaves hooks attached
        metrics = [metric for metric in metrics if hasattr(metric, 'observe')]
        if not metrics:
            return
        for part in predicting_parts(model):
            self._tap(*find_classifier(part, self.layer), metrics)

    def _tap(self, layer: nn.Module, anchor_head: Optional[nn.Module], metrics: List) -> None:
        is_first = True

        def give(layer: nn.Module, inputs: Tuple[Tensor, ...]) -> None:
            nonlocal is_first
            if is_first:
                # Not earlier: EMAHook puts its averaged weights in place after before_val.
                is_first = False
                reference = _weight_rows(layer), _anchors(anchor_head)
                for metric in metrics:
                    metric.set_reference(*reference)
            for metric in metrics:
                metric.observe(inputs[0].detach())

        self._handles.append(layer.register_forward_pre_hook(give))

    def _detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()


def predicting_parts(model: Any) -> List[nn.Module]:
    """Return the models that can predict: a model without wrappers, or student and teacher of a semi-supervised one."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    if not hasattr(model, 'predicting_part'):
        return [model]
    return [model.student] if model.teacher is None else [model.student, model.teacher.module]


def find_classifier(model: nn.Module, name: Optional[str] = None) -> Tuple[nn.Module, Optional[nn.Module]]:
    """Return a model's classifier layer and, where it has semantic anchors, the anchor head.

    Args:
        model: A segmentor of mmseg or a classifier of mmpretrain, without wrappers.
        name: Dotted name of the layer; None: see :class:`FeatureTapHook`.

    Raises:
        ValueError: There is no such layer.
    """
    found = None
    if name is not None:
        found = _get(model, name)
        children = ', '.join(child for child, _ in model.named_modules() if child)
        check(found is not None, 'layer', name, f'one of the layers of {type(model).__name__}: {children}')
    layer = _default_classifier(model) if found is None else found
    for module in model.modules():
        anchor_head: Any = getattr(module, 'anchor_head', None)
        if getattr(module, 'classifier_layer', None) is layer and hasattr(anchor_head, 'semantic_anchors'):
            return layer, anchor_head
    return layer, None


def _default_classifier(model: nn.Module) -> nn.Module:
    for place in _PLACES:
        layer = _get(model, place)
        if layer is not None:
            return layer
    raise UsageError(
        f'FeatureTapHook finds no classifier in {type(model).__name__} (tried {", ".join(_PLACES)}): name it by the '
        'argument `layer`, as in layer="head.layers.1.fc"'
    )


def _get(model: nn.Module, name: str) -> Optional[nn.Module]:
    """Return a submodule by its dotted name, in which -1 is the last of a list; None where there is none."""
    module: Any = model
    for part in name.split('.'):
        if part == '-1':
            module = module[-1] if isinstance(module, nn.ModuleList) else None
        else:
            module = getattr(module, part, None)
    return module if isinstance(module, nn.Module) else None


def _weight_rows(layer: nn.Module) -> Optional[Tensor]:
    """Return a copy of the weight as (K, C) where the layer has one row per class."""
    weight = getattr(layer, 'weight', None)
    if weight is None or weight[0, 0].numel() != 1:  # a kernel of several pixels is no vector of the feature space
        return None
    weight = weight.detach().flatten(1).clone()
    # One output tells two classes apart by its sign.
    return weight if len(weight) > 1 else weight.new_tensor([[-0.5], [0.5]]) * weight


def _anchors(anchor_head: Any) -> Optional[Tensor]:
    """Return a copy of the semantic anchors; None as long as none was set."""
    if anchor_head is None or not anchor_head.semantic_anchors.any():
        return None
    return anchor_head.semantic_anchors.detach().clone()
