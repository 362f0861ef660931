"""The figures of a report, each with the name of its file and what it shows."""

from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from matplotlib.figure import Figure

from ..plots import (
    plot_accuracy_by_frequency,
    plot_classified,
    plot_confusion,
    plot_cosines,
    plot_curves,
    plot_scores,
    plot_segmented,
    plot_tsne,
)
from ..plots.predictions import Classified, Segmented
from .examined import Examined, most_different, picture_of
from .logs import leaf, task_loss
from .runs import Run
from .scores import bounds_of, is_score, last_scores, measure_of, repeated

ANCHORS = dict(
    anchor_gate='gate: share of steps or classes that pull',
    anchor_acc='share of anchors classified right',
    anchor_conf='smallest probability of an anchor for its class',
    anchor_cos='largest cosine of two anchors',
    anchor_cos_mean='mean cosine of two anchors',
)
Models = Dict[str, List[Run]]


class Drawn(NamedTuple):
    """A figure, the name of its file without a suffix, and a sentence about it."""

    name: str
    caption: str
    figure: Figure


def loss_figures(models: Models) -> List[Drawn]:
    """Draw the task's loss, then every other term of the loss."""
    task = {title: [_split(task_loss(run.log.train)) for run in runs] for title, runs in models.items()}
    figures = _curves(task, 'loss_task', 'task loss', "The loss without the anchors' terms.")
    for name in _names(models, lambda name: 'loss' in name and name != 'loss'):
        curves = _logged(models, name)
        if not _are_alike(curves, task):
            figures += _curves(curves, name, name, '')
    return figures


def anchor_figures(models: Models) -> List[Drawn]:
    """Draw how the anchors do; nothing where no model has any."""
    figures = []
    for name in _names(models, lambda name: leaf(name) in ANCHORS):
        prefix = name[: -len(leaf(name))].rstrip('.')
        title = ANCHORS[leaf(name)] + (f' ({prefix})' if prefix else '')
        bounds = (-1, 1) if leaf(name).startswith('anchor_cos') else (0, 1)
        figures += _curves(_logged(models, name), name, name, f'{title[0].upper()}{title[1:]}.', bounds)
    return figures


def score_figures(models: Models) -> List[Drawn]:
    """Draw the scores of all validations, and those of the last one with their spread over the runs."""
    figures = []
    for name in _score_names(models):
        curves = {title: [_split(_valid(run, name)) for run in runs] for title, runs in models.items()}
        figures += _curves(curves, f'curve_{name}', measure_of(name), '', bounds_of(name))
    return figures


def last_score_figures(models: Models) -> List[Drawn]:
    """Draw the scores of the last validation: every run, mean and standard deviation."""
    figures = []
    for name in _score_names(models):
        values = {title: [last_scores(run).get(name, np.nan) for run in runs] for title, runs in models.items()}
        if np.isfinite([value for each in values.values() for value in each]).any():
            figures.append(Drawn(_file(f'score_{name}'), '', plot_scores(values, measure_of(name), bounds_of(name))))
    return figures


def class_figure(
    names: Sequence[str], counts: Optional[Sequence[int]], values: Dict[str, List[List[float]]], measure: str, unit: str
) -> List[Drawn]:
    """Draw the accuracy or IoU of every class over the classes' frequency; nothing where none is known."""
    values = {title: runs for title, runs in values.items() if runs}
    if not values:
        return []
    figure = plot_accuracy_by_frequency(names, counts, values, measure, unit)
    return [Drawn('class_frequency', '', figure)]


def confusion_figures(examined: Dict[str, List[Examined]]) -> List[Drawn]:
    """Draw the confusion matrix of each model, all runs together."""
    drawn = []
    for number, (title, runs) in enumerate(examined.items(), 1):
        counts = sum(run.recorder.confusion for run in runs)
        drawn.append(Drawn(f'confusion_{number}', '', plot_confusion(runs[0].classes, {title: counts})))
    return drawn


def feature_figures(examined: Dict[str, List[Examined]], seed: int) -> List[Drawn]:
    """Draw the cosines and the t-SNE of the first run of each model."""
    first = {title: runs[0] for title, runs in examined.items()}
    classes = next(iter(first.values())).classes
    tsne = {title: (each.features, each.labels, each.anchors) for title, each in first.items()}
    cosines = {title: (each.means, each.anchors) for title, each in first.items()}
    return [Drawn('tsne', '', plot_tsne(tsne, classes, seed)), Drawn('cosines', '', plot_cosines(classes, cosines))]


def prediction_figure(examined: Dict[str, List[Examined]], pair: Tuple[str, str], number: int) -> List[Drawn]:
    """Draw the images on which the first runs of two models differ most; nothing where their test sets differ."""
    first = {title: runs[0] for title, runs in examined.items()}
    records = {title: each.recorder.records for title, each in first.items()}
    labels = [np.concatenate([np.ravel(record.label) for record in each]) for each in records.values()]
    if any(not np.array_equal(labels[0], other) for other in labels[1:]):
        return []
    chosen = most_different(records[pair[0]], records[pair[1]], number)
    if not chosen:
        return []
    classes, dataset = first[pair[0]].classes, first[pair[0]].dataset
    pictures: list = []
    for index in chosen:
        image, own = picture_of(dataset, index), {title: each[index] for title, each in records.items()}
        if np.ndim(own[pair[0]].label):
            maps = {title: (record.predicted, record.score) for title, record in own.items()}
            pictures.append(Segmented(image, own[pair[0]].label, maps))
        else:
            said = {title: (record.predicted, record.probability) for title, record in own.items()}
            pictures.append(Classified(image, own[pair[0]].label, said))
    if isinstance(pictures[0], Segmented):
        figure = plot_segmented(classes, list(first), pictures, dataset.metainfo.get('palette'))
    else:
        figure = plot_classified(classes, list(first), pictures)
    return [Drawn('predictions', '', figure)]


def _curves(
    curves: Dict[str, list], name: str, measure: str, caption: str, bounds: Optional[Tuple[float, float]] = None
) -> List[Drawn]:
    curves = {title: [run for run in runs if len(run[0])] for title, runs in curves.items()}
    return [Drawn(_file(name), caption, plot_curves(curves, measure, bounds=bounds))] if any(curves.values()) else []


def _logged(models: Models, name: str) -> Dict[str, list]:
    """Return the curves of a logged number; a cosine of 0 means that there were no anchors yet."""
    absent = 0.0 if leaf(name).startswith('anchor_cos') else None
    return {
        title: [
            _split({at: v[name] for at, v in run.log.train.items() if name in v and v[name] != absent}) for run in runs
        ]
        for title, runs in models.items()
    }


def _are_alike(curves: Dict[str, list], others: Dict[str, list]) -> bool:
    return all(
        len(own[1]) == len(other[1]) and np.allclose(own[1], other[1], rtol=1e-3, equal_nan=True)
        for title in curves
        for own, other in zip(curves[title], others[title])
    )


def _names(models: Models, wanted: Callable[[str], bool]) -> List[str]:
    """Return the names of logged numbers of training steps, in the order in which they are logged."""
    runs = [run for runs in models.values() for run in runs]
    names = dict.fromkeys(name for run in runs for values in run.log.train.values() for name in values)
    return [name for name in names if wanted(name)]


def _score_names(models: Models) -> List[str]:
    """Return the names of the scores of validations, those of the geometry last."""
    runs = [run for runs in models.values() for run in runs]
    logged = [values for run in runs for values in run.log.val.values()]
    names = dict.fromkeys(name for values in logged for name, value in values.items() if is_score(name, value))
    again = repeated(logged)
    return [name for name in names if not name.startswith('geometry/') and name not in again]


def _valid(run: Run, name: str) -> Dict[int, float]:
    return {at: values[name] for at, values in run.log.val.items() if name in values}


def _split(values: Dict[int, float]) -> Tuple[List[int], List[float]]:
    return list(values), [float(value) for value in values.values()]


def _file(name: str) -> str:
    return ''.join(letter if letter.isalnum() or letter in '-_' else '_' for letter in name)
