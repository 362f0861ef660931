"""The comparison of a training that was killed and resumed with one that was left alone."""

from pathlib import Path
from typing import Dict, List, Set, Tuple

import torch

# Not the same from run to run: times, memory, and names made from the time of the start.
PASSING = {'time', 'data_time', 'memory', 'eta', 'experiment_name', 'cfg', 'mmengine_version'}


def differences(one, other, place: str = '') -> List[str]:
    """Return the places at which two checkpoints differ in as much as a bit, times and paths aside."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = {name for name in {*one, *other} if str(name).split('/')[-1] not in PASSING}
        alone = [f'{place}/{name}' for name in sorted(names - (names & one.keys() & other.keys()), key=str)]
        shared = sorted(names & one.keys() & other.keys(), key=str)
        return alone + [found for name in shared for found in differences(one[name], other[name], f'{place}/{name}')]
    if type(one) is not type(other):
        return [place]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [place]
        return [found for k, pair in enumerate(zip(one, other)) for found in differences(*pair, f'{place}/{k}')]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return [] if same and one.numpy().tobytes() == other.numpy().tobytes() else [place]
    if hasattr(one, '_log_history'):  # of a number in mmengine's log
        return differences(vars(one), vars(other), place)
    if hasattr(one, 'tobytes'):
        return [] if one.dtype == other.dtype and one.tobytes() == other.tobytes() else [place]
    if isinstance(one, str) and ('/' in one):
        one, other = Path(one).name, Path(other).name
    return [] if one == other or (one != one and other != other) else [place]


def steps(records: List[dict]) -> Dict[Tuple[str, int], dict]:
    """What happened in every step; where a step was made twice, both have to agree."""
    found = {}
    for record in records:
        record = {name: value for name, value in record.items() if name != 'pid'}
        if record['event'] not in ('training', 'trained', 'validated'):
            continue
        key = (record['event'], record['iter'])
        assert found.setdefault(key, record) == record, f'{key} went otherwise the second time'
    return found


def cut_off(records: List[dict]) -> Set[Tuple[str, int]]:
    """Steps that were trained, but killed before their record: after the checkpoint had its name, and so not repeated.

    The record comes last in a step, as it has the random states that hooks leave.
    """
    found = set()
    for last, start, first in zip(records, records[1:], records[2:]):
        was_killed = last['event'] in ('training', 'saving') and start['event'] == 'started'
        if was_killed and first['event'] in ('training', 'validating') and first['iter'] == last['iter'] + 1:
            found.add(('trained', last['iter']))
    return found
