"""The stock model that a model with semantic anchors is compared with."""

import os.path as osp
import re
from copy import deepcopy
from typing import List, NamedTuple, Optional, Sequence

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..engine.hooks import AnchorWeightHook
from .model_types import has_anchors, heads_with_anchors, names_hook

_OF_ANCHORS = r'.*\banchor_head\b|default_hooks\.anchor_'  # options that a stock config has no place for


class Stock(NamedTuple):
    """How to train a stock model.

    Args:
        config: Path of its config, None where it is for the user to write.
        options: ``--cfg-options`` that make it the stock model.
        shared: ``--cfg-options`` for both models.
    """

    config: Optional[str]
    options: List[str]
    shared: List[str]


def stock_of(cfg: Config, path: str, given: Sequence[str]) -> Stock:
    """Return the stock model of a config with anchors.

    Its config is ``X.py`` next to ``sar_X.py``, or the same one without the options that name SAR heads, or else with
    options that name the stock heads.

    Args:
        cfg: The config.
        path: Its path.
        given: ``--cfg-options`` as on the command line, which are merged into it.
    """
    named = [option for option in given if re.search(r'head.*type=(sar_mm\.)?SAR', option)]
    shared = [option for option in given if option not in named and not re.match(_OF_ANCHORS, option)]
    folder, name = osp.split(path)
    twin = osp.join(folder, name[len('sar_') :])
    if name.startswith('sar_') and osp.isfile(twin):
        return Stock(twin, [], shared)
    places = [f'{place}.type=' for place, _, _ in heads_with_anchors(cfg)]
    if named and all(any(option.startswith(place) for option in named) for place in places):
        return Stock(path, [], shared)
    types = _stock_types(cfg)
    return Stock(path, types, shared) if types else Stock(None, [], list(given))


def _stock_types(cfg: Config) -> List[str]:
    """Return options that replace all heads with anchors by the stock ones; none where more is to be changed."""
    cfg, types = deepcopy(cfg), {}
    for place, head, kind in heads_with_anchors(cfg):
        name = str(head.get('type')).rpartition('.')[2][len('SAR') :]
        scope = cfg.get('default_scope')
        with DefaultScope.overwrite_default_scope(scope), MODELS.switch_scope_and_registry(None) as registry:
            stock = registry.get(name) or object
        if stock in kind.__bases__:
            types[f'{place}.type'] = name
    cfg.merge_from_dict(types)
    is_enough = not has_anchors(cfg) and not names_hook(cfg, AnchorWeightHook)
    return [f'{place}={name}' for place, name in types.items()] if is_enough else []
