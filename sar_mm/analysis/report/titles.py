"""What the models of a report are called: what tells their configs apart."""

import re
from typing import Any, Dict, FrozenSet, Iterator, List, Sequence, Set, Tuple

from mmengine.config import Config

Settings = FrozenSet[Tuple[str, str]]

# Top keys of a config that do not make it another model.
_OF_THE_RUN = (
    *('auto_scale_lr', 'custom_imports', 'default_hooks', 'env_cfg', 'filename', 'launcher', 'load_from', 'log_level'),
    *('find_unused_parameters', 'log_processor', 'model_wrapper_cfg', 'randomness', 'resume', 'runner_type'),
    *('vis_backends', 'visualizer', 'work_dir'),
)
# A part of a config's name with the underscores and spaces in front of it; `sar_` is no part of its own.
_PART = re.compile(r'([_\s]*)((?:sar_)?[^_\s]+)')
_SHOWN = 3  # settings in a title
_LONGEST = 24  # letters of a value in a title


def settings_of(cfg: Config) -> Settings:
    """Return the dotted place and the value of everything in a config that makes the model what it is."""
    found = ((place, value) for place, value in _flat(cfg) if place.split('.')[0] not in _OF_THE_RUN)
    # tools/train.py adds the hook, the toolboxes' own tools do not.
    return frozenset((place, repr(value)) for place, value in found if value != 'AnchorMonitorHook')


def differences(models: Sequence[Tuple[str, Settings]]) -> List[List[Tuple[str, str]]]:
    """Return the settings of each model that not all models of its name have."""
    of_name: Dict[str, List[Settings]] = {}
    for name, settings in models:
        of_name.setdefault(name, []).append(settings)
    return [sorted(settings - frozenset.intersection(*of_name[name])) for name, settings in models]


def titles_of(models: Sequence[Tuple[str, Settings]]) -> List[str]:
    """Return a different title for each model, from the name of its config and its settings.

    Parts of the names that all have in common are left out, ``…`` stands for those in the middle. If that leaves
    nothing of a name, the first such part stays. Configs of the same name get the settings in which they differ.
    """
    if len(models) == 1:
        return [models[0][0]]
    names = list(dict.fromkeys(name for name, _ in models))
    short = dict(zip(names, _short(names)))
    titles = []
    for (name, _), own in zip(models, differences(models)):
        has_others = sum(other == name for other, _ in models) > 1
        titles.append(short[name] + (f' ({_said(own)})' if has_others else ''))
    return [
        f'{title} #{titles[: place + 1].count(title)}' if titles.count(title) > 1 else title
        for place, title in enumerate(titles)
    ]


def _short(names: Sequence[str]) -> List[str]:
    parts = [_PART.findall(name) for name in names]
    words = [[word for _, word in each] for each in parts]
    common = set(words[0]).intersection(*words[1:])
    if any(common.issuperset(each) for each in words):
        common.remove(next(word for word in words[0] if word in common))
    short = [_without(common, each) for each in parts]
    return short if len(set(short)) == len(names) else list(names)


def _without(common: Set[str], parts: Sequence[Tuple[str, str]]) -> str:
    title, is_cut = '', False
    for before, word in parts:
        if word in common:
            is_cut = True
            continue
        title += (' … ' if is_cut else before) + word if title else word
        is_cut = False
    return title


def _said(settings: Sequence[Tuple[str, str]]) -> str:
    """Return settings as a title has them: their last names, three of them at most, and no long values."""
    if not settings:
        return 'as it is'
    shown = []
    for place, value in settings[:_SHOWN]:
        (leaf,) = re.findall(r'[^.]+(?:\.\d+)*$', place)
        value = value.strip('\'"')
        shown.append(f'{leaf}={value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"}')
    return ', '.join([*shown, *(['…'] if len(settings) > _SHOWN else [])])


def _flat(node: Any, place: str = '') -> Iterator[Any]:
    """Yield the dotted place and value of everything in a config."""
    items = node.items() if isinstance(node, (dict, Config)) else enumerate(node)
    for key, value in items:
        inner = f'{place}.{key}'.lstrip('.')
        if isinstance(value, (dict, list, tuple)) and value:
            yield from _flat(value, inner)
        else:
            yield inner, value
