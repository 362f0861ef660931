"""Scores of runs: at the last validation, of every class, and as tables."""

import math
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from .examined import Examined
from .logs import Values, leaf
from .runs import Run

_NO_SCORES = ('step', 'iter', 'epoch', 'lr', 'time', 'data_time', 'memory')
# Which way is better; what is in neither is not marked.
HIGHER = (
    *('accuracy', 'balanced_accuracy', 'top1', 'top5', 'many', 'medium', 'few', 'mIoU', 'aAcc', 'mAcc', 'mDice'),
    *('mFscore', 'mPrecision', 'mRecall', 'common', 'rare', 'precision', 'recall', 'f1-score'),
)
GEOMETRY = dict(
    within_between_ratio=('lower', 'scatter within the classes over that between them'),
    nc1_cdnv=('lower', 'scatter of two classes over the squared distance of their means'),
    nc2_equinorm=('lower', 'variation of the distances of the class means from their center'),
    nc2_equiangularity=('lower', 'spread of the angles between the class means'),
    nc2_max_angle=('lower', 'how far the class means are from the largest possible angles'),
    nc3_self_duality=('lower', "how far the classifier's weights are from the class means"),
    cosine_max=('lower', 'largest cosine of two class means'),
    cosine_mean=('lower', 'mean cosine of two class means'),
    cosine_max_centred=('lower', 'the same of the means without their center'),
    cosine_mean_centred=('', 'of K equally spread means it is -1/(K-1)'),
    norm_cv=('lower', 'variation of the mean norm of a feature over the classes'),
    anchor_distance=('lower', 'mean distance of a class mean from its anchor'),
    anchor_distance_relative=('lower', 'the same over the norm of the anchor'),
    within_scatter=('', 'scatter within the classes; grows with the norm of the features'),
    between_scatter=('', 'scatter between the classes; grows with the norm of the features'),
    norm_mean=('', 'mean norm of a feature'),
)


class Cell(NamedTuple):
    text: str
    is_best: bool


class Row(NamedTuple):
    """A number of all models; ``better`` is ``'higher'``, ``'lower'`` or nothing."""

    name: str
    better: str
    note: str
    cells: List[Cell]


def last_scores(run: Run) -> Values:
    """Return the numbers of the last validation, without times and those of single classes."""
    values = run.log.val[max(run.log.val)] if run.log.val else {}
    return {name: value for name, value in values.items() if is_score(name, value)}


def repeated(runs: Iterable[Values]) -> Set[str]:
    """Return the scores that say again what another one does: GroupAccuracy's accuracy is mmpretrain's top1."""
    own, others = 'accuracy', 'accuracy/top1'
    having = [values for values in runs if own in values]
    is_same = all(math.isclose(values[own], values.get(others, math.nan), abs_tol=1e-3) for values in having)
    return {own} if having and is_same else set()


def bounds_of(name: str) -> Optional[Tuple[float, float]]:
    """Return the smallest and the largest value that a score can have, if it is known: these are in percent."""
    return (0, 100) if _last(name) in HIGHER else None


def measure_of(name: str) -> str:
    return f'{name} (%)' if bounds_of(name) else name


def is_score(name: str, value: Any) -> bool:
    is_of_class = name.startswith('IoU/') or (name.startswith('accuracy/') and _last(name) not in HIGHER)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and leaf(name) not in _NO_SCORES and not is_of_class


def of_class(run: Run, names: Sequence[str]) -> Optional[List[float]]:
    """Return the accuracy or IoU of every class at the last validation, in percent; None where it was not logged."""
    values = run.log.val[max(run.log.val)] if run.log.val else {}
    for prefix in ('IoU/', 'accuracy/'):
        if names and all(f'{prefix}{name}' in values for name in names):
            return [float(values[f'{prefix}{name}']) for name in names]
    return None


def score_rows(models: Dict[str, List[Dict[str, float]]]) -> List[Row]:
    """Return a row for each score: title -> the scores of each run."""
    names = dict.fromkeys(name for runs in models.values() for run in runs for name in run)
    for name in repeated(run for runs in models.values() for run in runs):
        del names[name]
    return [_row(name, 'higher' if _last(name) in HIGHER else '', '', models) for name in names]


def geometry_rows(models: Dict[str, List[Dict[str, float]]]) -> List[Row]:
    """Return a row for each number of the geometry, in the order of what says most."""
    numbers = {
        title: [{_last(name): value for name, value in run.items() if name.startswith('geometry/')} for run in runs]
        for title, runs in models.items()
    }
    there = {name for runs in numbers.values() for run in runs for name in run}
    return [_row(name, *GEOMETRY[name], numbers) for name in GEOMETRY if name in there]


def numbers_of(examined: Dict[str, List[Examined]]) -> Dict[str, List[Dict[str, float]]]:
    return {title: [each.numbers for each in runs] for title, runs in examined.items()}


def without_geometry(models: Dict[str, List[Dict[str, float]]]) -> Dict[str, List[Dict[str, float]]]:
    return {
        title: [{name: v for name, v in run.items() if not name.startswith('geometry/')} for run in runs]
        for title, runs in models.items()
    }


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """Return the mean and, of several values, their standard deviation; a dash where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return '–'
    mean = float(np.mean(finite))
    spread = f' ± {np.std(finite, ddof=1):.{digits}f}' if len(finite) > 1 else ''
    return f'{mean:.{digits}f}{spread}'


def _row(name: str, better: str, note: str, models: Dict[str, List[Dict[str, float]]]) -> Row:
    values = {title: [run[name] for run in runs if name in run] for title, runs in models.items()}
    finite = {title: [value for value in each if math.isfinite(value)] for title, each in values.items()}
    means = {title: float(np.mean(each)) for title, each in finite.items() if each}
    best = None
    if better and len(set(means.values())) > 1:
        best = (max if better == 'higher' else min)(means.values())
    largest = max(map(abs, means.values()), default=0.0)
    digits = 2 if bounds_of(name) or largest >= 10 else 3 if largest >= 0.1 else 4  # the same in all of a row
    cells = [
        Cell(mean_and_spread(values[title], digits), best is not None and means.get(title) == best) for title in models
    ]
    return Row(name, better, note, cells)


def _last(name: str) -> str:
    return name.rsplit('/', 1)[-1]
