"""From a stock head to the same head with semantic anchors."""

from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, Optional

from torch import Tensor, nn

from ...checks import check
from ...registry import MODELS


class HeadAdapter:
    """What all SAR heads share: a mixin in front of the stock head, which stays as it is.

    A subclass says where the stock head keeps its classifier and feature:

    - ``classifier`` is the dotted name of the layer that classifies the features;
    - ``classify`` puts embedded anchors through it;
    - the stock head's methods are overridden to call ``record`` with the classifier's input, before its dropout, to
      run the stock loss inside ``recording()`` and to add ``anchor_losses`` to what it returns.
    """

    classifier: str

    def __init__(self, *args, anchor_head: Optional[dict] = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._features: Optional[List[Tensor]] = None
        options = dict(self.anchor_defaults())
        for name, value in (anchor_head or {}).items():
            if name in ('num_classes', 'channels'):
                check(value == options[name], f'anchor_head.{name}', value, f'{options[name]}, as in the head')
            options[name] = value
        self.anchor_head = MODELS.build(options)

    @property
    def classifier_layer(self) -> nn.Module:
        return self.get_submodule(self.classifier)

    def anchor_defaults(self) -> dict:
        """Return the config of the anchor head as it follows from the stock head."""
        raise NotImplementedError

    def classify(self, anchors: Tensor) -> Tensor:
        """Classify embedded anchors, (K, C) -> (K, K), with the task classifier but without its dropout."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Initialise the stock head's weights; those of the anchor head come from its own seed."""
        anchor_head = self._modules.pop('anchor_head')
        try:
            super().init_weights()
        finally:
            self._modules['anchor_head'] = anchor_head

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the features given to ``record`` while the context lasts, and not longer: they hold a graph."""
        self._features = []
        try:
            yield
        finally:
            self._features = None

    def record(self, feature: Tensor) -> None:
        """Note the input of the task classifier; outside ``recording()`` nothing happens."""
        if self._features is not None:
            self._features.append(feature)

    def anchor_losses(self, target: Tensor) -> Dict[str, Tensor]:
        """Return the losses of the anchor head for the recorded feature."""
        if self._features is None or len(self._features) != 1:
            count = 'outside its loss()' if self._features is None else f'{len(self._features)} times'
            raise RuntimeError(
                f'{type(self).__name__} should see the input of its classifier `{self.classifier}` once per step, '
                f'but it did {count}: write an adapter for this head and pass it to with_semantic_anchors()'
            )
        return self.anchor_head.loss(self._features[0], target, self.classify)


_ADAPTERS: Dict[type, type] = {}


def adapts(*head_classes: type) -> Callable[[type], type]:
    """Make the decorated adapter the default for these head classes and those derived from them."""

    def decorate(adapter: type) -> type:
        _ADAPTERS.update(dict.fromkeys(head_classes, adapter))
        return adapter

    return decorate


def with_semantic_anchors(head_class: type, adapter: Optional[type] = None) -> type:
    """Return ``SAR<Head>``: the head with semantic anchors, an option ``anchor_head`` more and everything else alike.

    Args:
        head_class: A decode head of mmseg with a classifier ``conv_seg`` behind ``cls_seg``, or a classification head
            of mmpretrain that an adapter is known for.
        adapter: The :class:`HeadAdapter` that knows the head's feature and classifier. None: that of the nearest
            base class.

    Raises:
        TypeError: No adapter is known for the head.

    Example::

        from sar_mm.registry import MODELS
        from sar_mm.models import with_semantic_anchors

        MODELS.register_module(module=with_semantic_anchors(MyHead), name='SARMyHead')
    """
    if adapter is None:
        adapter = next((_ADAPTERS[base] for base in head_class.__mro__ if base in _ADAPTERS), None)
    if adapter is None:
        known = ', '.join(sorted(base.__name__ for base in _ADAPTERS))
        raise TypeError(
            f'with_semantic_anchors() does not know the feature and the classifier of {head_class.__name__}: derive '
            f'the head from one of {known}, or write a HeadAdapter and pass it as `adapter`'
        )
    namespace = dict(__module__=head_class.__module__, __doc__=f'{head_class.__name__} with semantic anchors.')
    return type(f'SAR{head_class.__name__}', (adapter, head_class), namespace)


def register_sar_heads(head_classes, namespace: dict) -> List[str]:
    """Register ``SAR<Head>`` for every head class, put it into a module's ``namespace`` and return the names."""
    names = []
    for head_class in head_classes:
        sar_class = with_semantic_anchors(head_class)
        sar_class.__module__ = namespace['__name__']  # where pickle finds it
        namespace[sar_class.__name__] = MODELS.register_module(module=sar_class)
        names.append(sar_class.__name__)
    return names
