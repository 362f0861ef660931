"""What is wrong with a config in a sentence: the place in it, the value, and the remedy or the nearest valid name."""

import difflib
import inspect
import os
import os.path as osp
import pkgutil
import re
import sys
import traceback
from importlib.util import find_spec
from types import FrameType
from typing import Any, List, NamedTuple, Optional

import mmengine.registry
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import OPTIMIZERS, Registry

from ..checks import did_you_mean
from .places import BUILDERS, Part, dicts, dotted, frames_of, join, known_keys, parts_of, place_of

_HOOK_POINTS = ('before_run', 'before_train')
_IN_TRAINING = ('run_iter', 'run_epoch')
_UNKNOWN_TYPE = re.compile(r'(?P<name>[\w.]+) is not in the (?P<registry>.+?) registry')
_UNKNOWN_OPTION = re.compile(r"(?P<callee>[\w.]+)\(\) got an unexpected keyword argument '(?P<name>\w+)'")
_MISSING_OPTION = re.compile(r'(?P<callee>[\w.]+)\(\) missing \d+ required [\w-]+ arguments?: (?P<names>.+)')
_ARGUMENT = re.compile(r'Expected argument `([\w.]+)(?:=[^`]*)?`')
_WRAPPED = re.compile(r'^(class `\w+` in \S+: )+')  # what mmengine put in front once


class UsageError(Exception):
    """Something the user typed is wrong; the message is all there is to show."""


class Raised(NamedTuple):
    """An error, and what is known of where it was raised."""

    error: BaseException
    text: str
    frames: List[FrameType]
    root: dict  # the config, as far as something reads it
    parts: List[Part]  # of the config that were being built
    place: str  # of the innermost of them, or of the hook that was running


def describe(error: BaseException, cfg: Optional[Config] = None) -> str:
    """Say in a sentence what went wrong, and where in the config."""
    text = _WRAPPED.sub('', str(error.args[0] if isinstance(error, KeyError) and error.args else error))
    frames = frames_of(error)
    root = {} if cfg is None else {key: cfg[key] for key in cfg if key in known_keys()}
    parts = parts_of(frames, root)
    raised = Raised(error, text, frames, root, parts, place_of(frames, root, parts))
    messages = (rule(raised) for rule in _RULES)
    return next((message for message in messages if message is not None), None) or _plain(raised)


def is_before_training(error: BaseException) -> bool:
    """Tell whether an error is one of what a run is built of, raised before its first step."""
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    is_built = any(name in BUILDERS or name in _HOOK_POINTS or name.startswith('build_') for name in names)
    return is_built and not any(name in _IN_TRAINING for name in names)


def options_of(kind: Any) -> List[str]:
    """Return the names of the options of a class, those that its ``**kwargs`` hand on to its bases included."""
    names: List[str] = []
    for each in getattr(kind, '__mro__', (kind,)):
        function = vars(each).get('__init__') if inspect.isclass(each) else each
        if function is None or each is object:
            continue
        parameters = inspect.signature(function).parameters.values()
        usable = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names += [each.name for each in parameters if each.kind in usable and each.name not in ('self', *names)]
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


def unknown_option(place: str, kind: Any, name: str, value: Any) -> str:
    """Say that a class has no option of this name, and which is nearest."""
    valid = options_of(kind) if kind is not None else []
    hint = did_you_mean(name, valid) or (f'; its options are {", ".join(valid)}' if valid else '')
    return f'{dotted(place, name)}={short(value)}: {getattr(kind, "__name__", place)} has no option {name}{hint}'


def short(value: Any) -> str:
    """Return a value as Python writes it, in at most 100 characters."""
    text = ' '.join(repr(value).split())
    return text if len(text) <= 100 else f'{text[:97]}...'


def _unknown_type(raised: Raised) -> Optional[str]:
    unknown = _UNKNOWN_TYPE.search(raised.text)
    if not unknown or not isinstance(raised.error, KeyError):
        return None
    name = unknown['name']
    places = [dotted(place, 'type') for place, node in dicts(raised.root) if node.get('type') == name]
    key = 'runner_type' if raised.root.get('runner_type') == name else (places or ['type'])[0]
    hint = did_you_mean(name.split('.')[-1], _registered_names(), most=3) or '; is its package in custom_imports?'
    return f"{key}='{name}' is not registered ({unknown['registry']}){hint}"


def _no_type(raised: Raised) -> Optional[str]:
    if 'must contain the key "type"' not in raised.text or not raised.parts:
        return None
    part = raised.parts[-1]
    above, _, name = part.place.rpartition('.')
    siblings = next((list(node) for place, node in dicts(raised.root) if place == above), [])
    hint = did_you_mean(name, [key for key in siblings if key != name]) or "; add type='...'"
    return f'{part.place}={short(part.options)} has no type{hint}'


def _unknown_option(raised: Raised) -> Optional[str]:
    unknown = _UNKNOWN_OPTION.search(raised.text)
    if not unknown or not isinstance(raised.error, TypeError):
        return None
    name = unknown['name']
    for part in reversed(raised.parts):
        if name in part.options:
            return unknown_option(part.place, part.kind, name, part.options[name])
    for place, node in dicts(raised.root):  # not built by a registry, as data loaders are not
        if name in node:
            return unknown_option(place, _callee(unknown['callee'], raised.frames), name, node[name])
    return None


def _missing_option(raised: Raised) -> Optional[str]:
    missing = _MISSING_OPTION.search(raised.text)
    if not missing or not isinstance(raised.error, TypeError) or not raised.parts:
        return None
    place, options, kind = raised.parts[-1]
    names, valid = re.findall(r"'(\w+)'", missing['names']), options_of(kind) if kind is not None else []
    if not set(names) <= set(valid):  # somebody else's call
        return None
    for name in options:
        if name not in ('type', *valid) and difflib.get_close_matches(name, names, n=1):
            return unknown_option(place, kind, name, options[name])
    return f'{place}: {kind.__name__} needs {" and ".join(names)}, which {place} does not give: add {names[0]}=...'


def _missing_file(raised: Raised) -> Optional[str]:
    if not isinstance(raised.error, OSError):
        return None
    named = re.fullmatch(r'file "(.+)" does not exist', raised.text)  # mmengine's
    path = named[1] if named else raised.error.filename
    if path is None:
        return None
    reason = f'{raised.error.strerror or "No such file or directory"}: {path}'
    if any(frame.f_code.co_name == '_file2dict' for frame in raised.frames):
        folder = osp.dirname(path)
        return f'_base_: {reason}{did_you_mean(osp.basename(path), os.listdir(folder) if osp.isdir(folder) else [])}'
    for part in reversed(raised.parts):
        for name, value in part.options.items():
            is_in_path = isinstance(value, str) and value and f'/{value}/' in f'/{path}/'.replace('//', '/')
            if is_in_path and not osp.exists(value):
                return f'{part.place}.{name}={value!r}: {reason}; put it there, or name another {name}'
    return f'{raised.place}: {reason}' if raised.place else reason


def _no_image(raised: Raised) -> Optional[str]:
    # All that mmengine says of an empty folder.
    if 'need at least one array to concatenate' not in raised.text or not raised.parts:
        return None
    part = raised.parts[-1]
    names = ('data_root', 'data_prefix', 'ann_file', 'img_suffix')
    given = ', '.join(f'{name}={part.options[name]!r}' for name in names if name in part.options)
    return f'{part.place}: there is no image with {given}: name another folder, list or suffix'


def _bad_optimizer(raised: Raised) -> Optional[str]:
    wrapper = raised.root.get('optim_wrapper')  # its optimizer is not built by a registry
    if not isinstance(wrapper, dict) or 'build_optim_wrapper' not in [each.f_code.co_name for each in raised.frames]:
        return None
    optimizer = wrapper.get('optimizer')
    if not isinstance(optimizer, dict):
        return f"optim_wrapper.optimizer={short(optimizer)} is no dict, such as dict(type='SGD', lr=0.01)"
    name = optimizer.get('type')
    if isinstance(name, str) and OPTIMIZERS.get(name) is None:
        return f"optim_wrapper.optimizer.type='{name}' is not registered{did_you_mean(name, _registered_names())}"
    return None


def _unknown_toolbox(raised: Raised) -> Optional[str]:
    unknown = re.search(r'does not support to load (\w+) config', raised.text)
    if not unknown:
        return None
    there = ', '.join(f'{name}::' for name in MODULE2PACKAGE if find_spec(name) is not None)
    return f'_base_: there is no toolbox {unknown[1]}, as in {unknown[1]}::...; those that are installed are {there}'


def _bad_imports(raised: Raised) -> Optional[str]:
    if 'import_modules_from_strings() argument after **' in raised.text:
        return "custom_imports is no dict, such as dict(imports=['sar_mm'])"
    if not raised.text.startswith('Failed to import custom modules from'):
        return None
    given = raised.text[len('Failed to import custom modules from ') :].split(', the current')[0]
    cause = raised.error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__
    package, _, name = (getattr(cause, 'name', None) or '').rpartition('.')
    folders = getattr(sys.modules.get(package), '__path__', None)
    # What is installed in editable form is not found in any folder, but imported, as the tools import this package.
    names = [module.name for module in pkgutil.iter_modules(folders)] + list(sys.modules)
    hint = did_you_mean(name, names)
    return f'custom_imports={given}: {cause}{hint or "; install it, or put its folder on PYTHONPATH"}'


def _argument(raised: Raised) -> Optional[str]:
    argument = _ARGUMENT.search(raised.text)
    return None if argument is None else f'{join(raised.place, argument[1])}: {raised.text}'


_RULES = (
    *(_unknown_type, _no_type, _unknown_option, _missing_option, _missing_file, _no_image, _bad_optimizer),
    *(_unknown_toolbox, _bad_imports, _argument),
)


def _plain(raised: Raised) -> str:
    error = raised.error
    prefix = f'{raised.place}: ' if raised.place else ''
    last = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1:]
    is_ours = any(frame.f_globals.get('__name__', '').startswith('sar_mm.') for frame in last)
    if isinstance(error, (OSError, UsageError)) or is_ours and isinstance(error, (RuntimeError, TypeError, ValueError)):
        return f'{prefix}{raised.text}'
    where = ''.join(
        f' (raised at {frame.filename}:{frame.lineno})' for frame in traceback.extract_tb(error.__traceback__)[-1:]
    )
    return f'{prefix}{type(error).__name__}: {raised.text}{_quoted_numbers(raised.parts)}{where}'


def _quoted_numbers(parts: List[Part]) -> str:
    for part in parts[-1:]:
        for name, value in part.options.items():
            if isinstance(value, str) and re.fullmatch(r'[-+]?[\d.]+(e[-+]?\d+)?', value):
                return f'; {part.place}.{name}={value!r} is a string where an integer or a float may be meant'
    return ''


def _callee(name: str, frames: List[FrameType]) -> Any:
    """Return the class, or the function, that a TypeError names, if its caller knows it by this name."""
    first, *rest = name.split('.')
    owner = frames[-1].f_globals.get(first) if frames else None
    return getattr(owner, rest[-1], None) if rest and rest[-1] != '__init__' else owner


def _registered_names() -> List[str]:
    roots = [registry for registry in vars(mmengine.registry).values() if isinstance(registry, Registry)]
    registries = roots + [child for root in roots for child in root.children.values()]
    return sorted({name for registry in registries for name in registry.module_dict})
