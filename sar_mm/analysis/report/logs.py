"""The scalars of a training, as mmengine's LocalVisBackend writes them."""

import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from ...names import ANCHOR_LOSSES

Values = Dict[str, Any]


class Log(NamedTuple):
    """What was logged: iteration -> name -> value, of training steps and of validations."""

    train: Dict[int, Values]
    val: Dict[int, Values]


def read_log(work_dir: Path) -> Log:
    """Read the ``vis_data/scalars.json`` of all starts of a training in a work folder.

    After a resumed start, what an earlier one logged of the iterations that were trained again is left out. A line that
    a running or killed process has not written to its end is left out, too.

    A validation that is logged by its epoch gets the iteration that was logged last before it.
    """
    train: Dict[int, Values] = {}
    val: Dict[int, Values] = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):  # the folders are named by the time of the start
        before, earliest = 0, min(train, default=0)
        for values in _lines(path):
            if _is_training(values):
                at = int(values['iter'])
                if before == 0:
                    for logged in (train, val):
                        for place in [place for place in logged if place >= at]:
                            del logged[place]
                train[at], before = values, at
            elif before or int(values.get('step', 0)) >= earliest:  # below it, an epoch without an iteration before it
                val[max(int(values.get('step', 0)), before)] = values
    return Log(dict(sorted(train.items())), dict(sorted(val.items())))


def _lines(path: Path) -> List[Values]:
    lines = []
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            lines.append(values)
    return lines


def _is_training(values: Values) -> bool:
    return 'iter' in values and ('lr' in values or 'loss' in values)


def leaf(name: str) -> str:
    """Return a name without the part of the model in front of it, ``anchor_gate`` of ``decode.anchor_gate``."""
    return name.rsplit('.', 1)[-1]


def task_loss(train: Dict[int, Values]) -> Dict[int, float]:
    """Return the sum of all losses but those of the anchors, which stock and SAR models have in common.

    AnchorMonitorHook logs it as ``task``. Without: under ``loss``, mmseg logs the sum of all losses; mmpretrain logs
    there what its head calls ``loss``, one term of the sum, and mmseg has no other of that name.
    """
    found = {}
    for at, values in train.items():
        if not isinstance(values.get('loss'), (int, float)):
            continue
        others = [v for k, v in values.items() if 'loss' in k and k != 'loss' and leaf(k) not in ANCHOR_LOSSES]
        is_sum = any('.' in name and 'loss' in name for name in values)  # mmseg names the head in front of each loss
        found[at] = values['task'] if 'task' in values else sum(others) + (0 if is_sum else values['loss'])
    return found
