"""What the tools need to know of the model in a config before it is built."""

import re
from typing import List

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..checks import UsageError
from ..engine.hooks import AnchorMonitorHook
from ..engine.runner import MONITOR
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
    """Add an AnchorMonitorHook to the default hooks of a config whose model has semantic anchors.

    Not where it has one among its hooks, or switches it off: ``default_hooks = dict(anchor_monitor=None)``.
    """
    hooks = cfg.get('default_hooks') or {}
    if MONITOR not in hooks and not names_hook(cfg, AnchorMonitorHook) and has_anchors(cfg):
        cfg.default_hooks = dict(hooks, anchor_monitor=dict(type='AnchorMonitorHook'))


def names_hook(cfg: Config, kind: type) -> bool:
    """Tell whether a config has a hook of a class, or of one derived from it."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    kinds = [each for place, _, each in parts_of(cfg) if place.startswith(('default_hooks.', 'custom_hooks.'))]
    kinds += map(type, hooks)  # of those that are built already
    return any(isinstance(each, type) and issubclass(each, kind) for each in kinds)


def heads_with_anchors(cfg: Config) -> List[tuple]:
    """Return place, dict and class of the heads of a config's model that are a stock head with anchors."""
    parts = [part for part in parts_of(cfg) if part[0].split('.')[0] == 'model' and isinstance(part[2], type)]
    return [part for part in parts if issubclass(part[2], SARHeadMixin)]


def has_anchors(cfg: Config) -> bool:
    """Tell whether the model of a config has a head with anchors."""
    kinds = [kind for place, _, kind in parts_of(cfg) if place.split('.')[0] == 'model' and isinstance(kind, type)]
    return any(issubclass(kind, (SemanticAnchorHead, SARHeadMixin)) for kind in kinds)
