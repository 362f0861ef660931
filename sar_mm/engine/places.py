"""Where in a config it was that an error was raised, read from the frames that it came through."""

import inspect
import traceback
from types import FrameType
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

from mmengine.runner import Runner

# What mmengine and this package build parts of a config with; both have the part in `cfg`, and its class beside it.
BUILDERS = {'build_from_cfg': 'obj_cls', 'build_anchors': 'anchors'}
# What the runners read besides the arguments of mmengine's Runner, and the tools of this package.
_FURTHER_KEYS = (
    *('_base_', 'activation_checkpointing', 'check_classes', 'compile', 'custom_imports', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline'),
)


class Part(NamedTuple):
    """A part of a config that an error was raised in while it was built."""

    place: str  # dotted
    options: dict
    kind: Any  # its class, None where it was not found


def known_keys() -> List[str]:
    """Return the keys of a config that something reads."""
    return [*runner_keys(), *_FURTHER_KEYS]


def runner_keys() -> List[str]:
    """Return the arguments of mmengine's Runner."""
    return [name for name in inspect.signature(Runner.__init__).parameters if name not in ('self', 'cfg')]


def frames_of(error: BaseException) -> List[FrameType]:
    """Return where an error came through, and those that it was raised from, from the outermost on."""
    frames: List[FrameType] = []
    cause: Optional[BaseException] = error
    while cause is not None:
        frames += [frame for frame, _ in traceback.walk_tb(cause.__traceback__)]
        cause = cause.__cause__
    return frames


def parts_of(frames: List[FrameType], root: dict) -> List[Part]:
    """Return the parts of the config that were being built, from the outermost on, as far as they are found in it."""
    parts: List[Part] = []
    node, place = root, ''
    for frame in frames:
        kind_name = BUILDERS.get(frame.f_code.co_name)
        given = frame.f_locals.get('cfg') if kind_name else None
        if not isinstance(given, dict):
            continue
        found = _locate(given, node, place) or _locate(given, root, '')
        if found is not None:
            place, node = found
            parts.append(Part(place, dict(given), frame.f_locals.get(kind_name)))
    return parts


def _locate(given: dict, root: dict, place: str) -> Optional[Tuple[str, dict]]:
    """Return where a part of a config is: what is built has often been given further options, and a type."""
    best, most = None, 0
    for where, node in dicts(root, place):
        same = sum(key in given and _same(given[key], value) for key, value in node.items())
        fits = node.get('type', given.get('type')) == given.get('type') and node is not root
        if fits and 2 * same >= len(node) and same > most:
            best, most = (where, node), same
    return best


def _same(one: Any, other: Any) -> bool:
    try:
        return one is other or bool(one == other)
    except Exception:  # tensors and arrays
        return False


def dicts(node: Any, place: str = '') -> Iterator[Tuple[str, dict]]:
    """Yield all dicts in a config with their dotted places, the outer ones first."""
    if isinstance(node, dict):
        yield place, node
        children = list(node.items())
    else:
        children = list(enumerate(node)) if isinstance(node, (list, tuple)) else []
    for key, child in children:
        yield from dicts(child, dotted(place, str(key)))


def place_of(frames: List[FrameType], root: dict, parts: List[Part]) -> str:
    """Return the place of the innermost part that was being built, or whose method was running, as that of a hook."""
    built = parts[-1].place if parts else ''
    for frame in reversed(frames):
        owner = type(frame.f_locals.get('self')).__name__
        for place, node in dicts(root):
            kind = node.get('type')
            name = kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', None)
            if name == owner and place.startswith(f'{built}.' if built else ''):
                return place
    return built


def join(place: str, name: str) -> str:
    """Join a place and the name of an argument, which may begin with what the place ends with, or be elsewhere."""
    if name.startswith('train_dataloader.'):
        return name
    above, names = place.split('.') if place else [], name.split('.')
    longest = len(names) if len(names) > 1 else 0
    shared = next(count for count in range(longest, -1, -1) if above[len(above) - count :] == names[:count])
    return '.'.join([*above, *names[shared:]])


def dotted(place: str, name: str) -> str:
    return f'{place}.{name}' if place else name
