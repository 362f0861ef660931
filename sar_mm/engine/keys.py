"""Keys of a config that nothing reads."""

import difflib
from typing import Any, Dict

from mmengine.config import Config

from ..checks import did_you_mean
from .errors import UsageError, short
from .places import known_keys, runner_keys

_KEYS_OF = dict(
    auto_scale_lr=('base_batch_size', 'enable'), env_cfg=('cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit')
)


def check_keys(cfg: Config, given: Dict[str, Any]) -> None:
    """Raise a UsageError for keys at the top of a config that nothing reads, as far as that is certain.

    Args:
        cfg: The config, without what is given on the command line.
        given: What is, by dotted keys; nothing can read a key at the top that neither the config nor mmengine knows.
    """
    known = known_keys()
    for key in given:
        top = key.split('.')[0]
        if top not in cfg and top not in known:
            raise UsageError(
                f'{key}={short(given[key])}: the config has no {top}, and nothing reads it{did_you_mean(top, known)}'
            )
    for key in cfg:
        # A config has names of its own; they may resemble keys that it has, but hardly those that it lacks.
        nearest = difflib.get_close_matches(key, ['_base_', 'custom_imports', *runner_keys()], n=1, cutoff=0.85)
        if key not in known and nearest and nearest[0] not in cfg:
            raise UsageError(f'{key}={short(cfg[key])}: nothing reads {key}; did you mean {nearest[0]}?')
    for name, valid in _KEYS_OF.items():
        for key, value in {**(cfg.get(name) or {}), **_within(given, name)}.items():
            if key not in valid:
                raise UsageError(f'{name}.{key}={short(value)}: nothing reads {key}{did_you_mean(key, valid)}')


def _within(given: Dict[str, Any], name: str) -> Dict[str, Any]:
    return {key.split('.')[1]: value for key, value in given.items() if key.startswith(f'{name}.')}
