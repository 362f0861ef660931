"""From a stock head class to the class of the same head with semantic anchors."""

from inspect import Parameter, Signature, signature
from typing import Dict, Iterable, List, Optional, Tuple, Union

from mmengine.registry import Registry

from ...registry import MODELS
from .mixin import SARHeadMixin

Classifier = Union[str, Tuple[str, ...]]

# The mixin and the classifier of a stock head and of those derived from it.
_MIXINS: Dict[type, Tuple[type, Classifier]] = {}
# Why a stock head can have no anchors. It holds for those derived from it, too, unless there is a mixin for them.
_REASONS: Dict[type, str] = {}


def register_mixin(mixin: type, classifiers: Dict[type, Classifier]) -> None:
    """Make a mixin the default for head classes and those derived from them.

    Args:
        mixin: A :class:`SARHeadMixin`.
        classifiers: The path of the classifier layer in each head class.
    """
    _MIXINS.update({head_class: (mixin, classifier) for head_class, classifier in classifiers.items()})


class RefusedHead:
    """Stands in the registry for the SAR version of a head that can have none; building it says why."""

    reason: str

    def __init__(self, *args, **kwargs) -> None:
        raise TypeError(self.reason)


def with_semantic_anchors(
    head_class: type, classifier: Optional[Classifier] = None, mixin: Optional[type] = None
) -> type:
    """Return ``SAR<Head>``: the head with semantic anchors, with the further option ``anchor_head``.

    Args:
        head_class: A decode head of mmseg or a classification head of mmpretrain; docs/heads.md lists them.
        classifier: Path of the layer that classifies, such as ``'layers.fc'``, or paths. None: that of the nearest base
            class, ``conv_seg`` of decode heads and ``fc`` of classification heads.
        mixin: A :class:`SARHeadMixin` of one's own. None: that of the nearest base class.

    Raises:
        TypeError: No mixin is known for the head, or it has no class anchors by its nature.

    Example::

        from sar_mm.registry import MODELS
        from sar_mm.models import with_semantic_anchors

        SARMyHead = MODELS.register_module(module=with_semantic_anchors(MyHead))
    """
    name = head_class.__name__
    if issubclass(head_class, SARHeadMixin):
        raise TypeError(f'{name} has semantic anchors already')
    base = next((each for each in head_class.__mro__ if each in _MIXINS or each in _REASONS), None)
    if mixin is None and base is None:
        known = ', '.join(sorted(each.__name__ for each in _MIXINS))
        raise TypeError(
            f'with_semantic_anchors() does not know how {name} calls its classifier: derive the head from one of '
            f'{known}, or pass a `mixin`'
        )
    if mixin is None and base in _REASONS and (base is head_class or base not in _MIXINS):
        raise TypeError(f'{name} can have no semantic anchors: {_REASONS[base]}')
    known_mixin, known_classifier = _MIXINS.get(base, (None, None))
    mixin = known_mixin if mixin is None else mixin
    if classifier is None:
        classifier = getattr(mixin, 'classifier', known_classifier)
        if classifier is None:
            raise TypeError(f'with_semantic_anchors() does not know the classifier of {name}: pass its path')

    def __init__(self, *args, **kwargs) -> None:
        super(sar_class, self).__init__(*args, **kwargs)  # type: ignore[arg-type]

    __init__.__signature__ = _with_anchor_head(signature(head_class.__init__))
    namespace = dict(
        __init__=__init__,
        __module__=head_class.__module__,
        __doc__=f'{name} with semantic anchors.',
        classifier=classifier,
    )
    sar_class = type(f'SAR{name}', (mixin, head_class), namespace)
    return sar_class


def _with_anchor_head(stock: Signature) -> Signature:
    option = Parameter('anchor_head', Parameter.KEYWORD_ONLY, default=None, annotation=Optional[dict])
    parameters = list(stock.parameters.values())
    has_kwargs = parameters[-1].kind is Parameter.VAR_KEYWORD
    parameters.insert(len(parameters) - has_kwargs, option)
    return stock.replace(parameters=parameters)


def register_sar_heads(names: Iterable[str], registry: Registry, namespace: dict) -> List[str]:
    """Register ``SAR<Head>`` for heads of a toolbox's registry, as far as its version has them.

    The classes are put into ``namespace``, that of the calling module; their names are returned.
    """
    sar_names = []
    for head_class in (registry.module_dict[name] for name in names if name in registry.module_dict):
        sar_class = with_semantic_anchors(head_class)
        sar_class.__module__ = namespace['__name__']  # where pickle finds it
        namespace[sar_class.__name__] = MODELS.register_module(module=sar_class)
        sar_names.append(sar_class.__name__)
    return sar_names


def register_refusals(reasons: Dict[str, str], registry: Registry) -> None:
    """Register for heads of a toolbox's registry why there is no ``SAR<Head>``, as far as its version has them."""
    for name in reasons.keys() & registry.module_dict.keys():
        _REASONS[registry.module_dict[name]] = reasons[name]
        reason = f'{name} can have no semantic anchors: {reasons[name]}'
        MODELS.register_module(module=type(f'SAR{name}', (RefusedHead,), dict(reason=reason)))
