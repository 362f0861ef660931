"""From a stock head class to the class of the same head with semantic anchors."""

from typing import Callable, Dict, Iterable, List, Optional, Union

from mmengine.registry import Registry

from ...registry import MODELS
from .adapter import HeadAdapter

# The adapter of a stock head and of those derived from it, or the reason why there is none.
_ADAPTERS: Dict[type, Union[type, str]] = {}


def adapts(*head_classes: type) -> Callable[[type], type]:
    """Make the decorated adapter the default for these head classes and those derived from them."""

    def decorate(adapter: type) -> type:
        _ADAPTERS.update(dict.fromkeys(head_classes, adapter))
        return adapter

    return decorate


class RefusedHead:
    """Stands in the registry for the SAR version of a head that can have none; building it says why."""

    reason: str

    def __init__(self, *args, **kwargs) -> None:
        raise TypeError(self.reason)


def with_semantic_anchors(head_class: type, adapter: Optional[type] = None) -> type:
    """Return ``SAR<Head>``: the head with semantic anchors, an option ``anchor_head`` more and everything else alike.

    Args:
        head_class: A decode head of mmseg or a classification head of mmpretrain; docs/heads.md lists them.
        adapter: The :class:`HeadAdapter` that knows the head's feature and classifier. None: that of the nearest
            base class.

    Raises:
        TypeError: No adapter is known for the head, or it has no class anchors by its nature.

    Example::

        from sar_mm.registry import MODELS
        from sar_mm.models import with_semantic_anchors

        SARMyHead = MODELS.register_module(module=with_semantic_anchors(MyHead))
    """
    if issubclass(head_class, HeadAdapter):
        raise TypeError(f'{head_class.__name__} has semantic anchors already')
    if adapter is None:
        adapter = next((_ADAPTERS[base] for base in head_class.__mro__ if base in _ADAPTERS), None)
    if adapter is None:
        known = ', '.join(sorted(base.__name__ for base, known in _ADAPTERS.items() if isinstance(known, type)))
        raise TypeError(
            f'with_semantic_anchors() does not know the feature and the classifier of {head_class.__name__}: derive '
            f'the head from one of {known}, or write a HeadAdapter and pass it as `adapter`'
        )
    if isinstance(adapter, str):
        raise TypeError(f'{head_class.__name__} can have no semantic anchors: {adapter}')
    namespace = dict(__module__=head_class.__module__, __doc__=f'{head_class.__name__} with semantic anchors.')
    return type(f'SAR{head_class.__name__}', (adapter, head_class), namespace)


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
        _ADAPTERS[registry.module_dict[name]] = reasons[name]
        reason = f'{name} can have no semantic anchors: {reasons[name]}'
        MODELS.register_module(module=type(f'SAR{name}', (RefusedHead,), dict(reason=reason)))
