"""Errors as the tools print them: a sentence for a UsageError, a traceback and a line of help for all others."""

import difflib
import inspect
import logging
import os
import sys
import traceback
from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator, List, Optional

import mmengine.registry
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from ..checks import UsageError, did_you_mean
from ..engine.safe_checkpoints import CheckpointError
from ..registry import ANCHORS

# What a part of a config without a `type` is built as, by the name of the part.
_DEFAULTS: Dict[str, Any] = dict(train_dataloader=DataLoader, val_dataloader=DataLoader, test_dataloader=DataLoader)
_DEFAULTS.update(anchor_head='SemanticAnchorHead', anchors='GaussianAnchors', loss='SARLoss', teacher='MeanTeacher')
_DEFAULTS.update(distribution_alignment='DistributionAlignment')


@contextmanager
def report_errors(cfg: Optional[Config] = None) -> Iterator[None]:
    """Print an error to stderr and the log file, and exit: with code 2 after a UsageError or CheckpointError, else 1.

    These two are one sentence, with the place in the config; others have a traceback, and a line of help below it.
    Ctrl-C ends with code 130, as in a shell, and no traceback.
    """
    rank = os.environ.get('RANK', '0')
    name = '' if rank == '0' else f' of rank {rank}'  # any process may be the only one with an error
    try:
        yield
        return
    except KeyboardInterrupt:
        text, code = f'interrupted{name}', 130
    except (CheckpointError, UsageError) as error:
        text, code = f'error{name}: {error}{_place_of(error, cfg)}', 2
    except Exception as error:
        advice = help_for(error, cfg)
        text, code = traceback.format_exc().rstrip() + (f'\nhelp{name}: {advice}' if advice else ''), 1
    print(f'\n{text}', file=sys.stderr)
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(logging.LogRecord('mmengine', logging.ERROR, __file__, 0, text, None, None, 'tool'))
    sys.exit(code)


def help_for(error: BaseException, cfg: Optional[Config] = None) -> str:
    """Return a line on a name that an error mentions: its place in the config and the nearest valid one; or nothing."""
    cause: Any = error
    while isinstance(error, ImportError) and cause is not None:  # mmengine raises another one from the first
        if getattr(cause, 'name', None):
            hint = did_you_mean(cause.name, list(sys.modules), cutoff=0.8)
            return f'cannot import {cause.name}: install it, or put the folder that it is in on PYTHONPATH{hint}'
        cause = cause.__cause__ or cause.__context__
    text, parts = ' '.join(map(str, error.args)), parts_of(cfg)
    if isinstance(error, KeyError):
        return _unknown_type(text, parts, list(_registered(None)))
    return _unknown_option(text, parts) if isinstance(error, TypeError) else ''


def _unknown_type(text: str, parts: List[tuple], registered: List[str]) -> str:
    given = [(f'{place}.{key}', options.get(key)) for place, options, _ in parts for key in ('type', 'runner_type')]
    for place, kind in given:
        name = kind.rpartition('.')[2] if isinstance(kind, str) else ''
        if name and kind in text and name not in registered:
            return unknown_type(place.lstrip('.'), kind)
    return ''


def unknown_type(place: str, kind: str, scope: Optional[str] = None) -> str:
    """Return a sentence on a type that is not registered, with the nearest names that are."""
    hint = did_you_mean(kind.rpartition('.')[2], list(_registered(scope)), most=3)
    return f'{place}={kind!r} is not registered{hint or "; put its module into custom_imports and on PYTHONPATH"}'


def _unknown_option(text: str, parts: List[tuple]) -> str:
    for place, name, kind in [(place, name, kind) for place, options, kind in parts if kind for name in options]:
        valid = options_of(kind)
        near = difflib.get_close_matches(name, valid, n=1)
        if name not in ('type', *valid) and any(f"'{each}'" in text for each in [name, *near]):  # unknown, or missing
            others = [each for each, _, kind in parts if name in options_of(kind) and (each in place or place in each)]
            hint = f'; set {others[0]}.{name}' if others else did_you_mean(name, valid)
            return f'{place}.{name}: {kind.__name__} has no option {name}{hint or "; it has " + ", ".join(valid)}'
    return ''


def options_of(kind: Any) -> List[str]:
    """Return the names of the options of a class and its bases; none where it is no class and no function."""
    functions = [each.__init__ for each in getattr(kind, '__mro__', ()) if '__init__' in vars(each)] or [kind]
    names = [name for each in functions if callable(each) for name in inspect.signature(each).parameters]
    return [name for name in dict.fromkeys(names) if name not in ('self', 'args', 'kwargs')]


def parts_of(cfg: Optional[Config]) -> List[tuple]:
    """Return place, dict and class (None if unknown) of the parts of a config, and of those built by default."""
    return [] if cfg is None else list(_walk(dict(cfg.items()), '', _registered(cfg.get('default_scope'))))


def _walk(node: Any, place: str, registered: Dict[str, Any]) -> Iterator[tuple]:
    children: Iterable[tuple] = enumerate(node) if isinstance(node, (list, tuple)) else ()
    if isinstance(node, dict):
        kind = node.get('type', _DEFAULTS.get(place.rpartition('.')[2]))
        kind = registered.get(kind.rpartition('.')[2]) if isinstance(kind, str) else kind
        yield place, node, kind
        children = {**{name: {} for name in options_of(kind) if name in _DEFAULTS}, **node}.items()
    for name, child in children:
        yield from _walk(child, f'{place}.{name}'.lstrip('.'), registered)


def _registered(scope: Optional[str]) -> Dict[str, Any]:
    """Return all that is registered, by name; of two of a name, that of the scope."""
    roots = [root for root in vars(mmengine.registry).values() if isinstance(root, mmengine.registry.Registry)]
    registries = [ANCHORS, *roots, *(child for root in roots for child in root.children.values())]
    registries.sort(key=lambda registry: registry.scope == scope)
    return {name: kind for registry in registries for name, kind in registry.module_dict.items()}


def _place_of(error: Exception, cfg: Optional[Config]) -> str:
    end, value = f'.{getattr(error, "argument", None)}', repr(getattr(error, 'value', None))
    given = [(f'{place}.{name}', each) for place, options, _ in parts_of(cfg) for name, each in options.items()]
    places = [place.lstrip('.') for place, each in given if f'.{place}'.endswith(end) and repr(each) == value]
    return f' (in the config: {" and ".join(places[:3])})' if places else ''
