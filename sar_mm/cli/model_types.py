"""What the tools need to know of the model in a config before it is built."""

import re

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..checks import UsageError
from ..models.anchor_head import SemanticAnchorHead
from ..models.heads.mixin import SARHeadMixin
from .errors import parts_of, unknown_type

# Parts that the models of the toolboxes and of this package build by their type.
_BUILT = re.compile(r'model(\.(segmentor|classifier))?(\.(backbone|neck|head|(decode|auxiliary)_head(\.\d+)?))?')
_PACKAGES = ('mmseg', 'mmpretrain', 'sar_mm')


def check_model_types(cfg: Config) -> None:
    """Raise a UsageError where a model, backbone, neck or head is of an unknown type.

    A runner would say so, too, but logs the whole config before it builds the model. The parts of a model of another
    package are not checked: it may build them in its own way.
    """
    scope = cfg.get('default_scope')
    for place, options, _ in parts_of(cfg):
        kind = options.get('type')
        if kind is None or not _BUILT.fullmatch(place):
            continue
        if isinstance(kind, str):
            with DefaultScope.overwrite_default_scope(scope), MODELS.switch_scope_and_registry(None) as registry:
                found = registry.get(kind)
            if found is None:
                raise UsageError(unknown_type(f'{place}.type', kind, scope))
            kind = found
        if place == 'model' and kind.__module__.split('.')[0] not in _PACKAGES:
            return


def watch_anchors(cfg: Config) -> None:
    """Add an AnchorMonitorHook to the hooks of a config whose model has semantic anchors, unless it names one."""
    hooks = list(cfg.get('custom_hooks') or [])
    names = [str(getattr(hook.get('type'), '__name__', hook.get('type'))) for hook in hooks if isinstance(hook, dict)]
    if not any(name.endswith('AnchorMonitorHook') for name in names) and has_anchors(cfg):
        cfg.custom_hooks = [*hooks, dict(type='AnchorMonitorHook')]


def has_anchors(cfg: Config) -> bool:
    """Tell whether the model of a config has a head with anchors."""
    kinds = [kind for place, _, kind in parts_of(cfg) if place.split('.')[0] == 'model' and isinstance(kind, type)]
    return any(issubclass(kind, (SemanticAnchorHead, SARHeadMixin)) for kind in kinds)
