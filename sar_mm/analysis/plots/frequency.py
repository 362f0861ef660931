from typing import Dict, Optional, Sequence

import numpy as np
from matplotlib.figure import Figure

from ...checks import check
from .labels import legend_above, width_of
from .style import (
    MAX_NAMES,
    MODEL_COLOURS,
    MODEL_MARKERS,
    PAGE_WIDTH,
    check_models,
    end_bars_with_axis,
    name_axis,
    new_figure,
    per_class,
    styled,
)


@styled
def plot_accuracy_by_frequency(
    names: Sequence[str],
    counts: Optional[Sequence[int]],
    models: Dict[str, Sequence],
    measure: str = 'accuracy (%)',
    unit: str = 'training images',
) -> Figure:
    """Draw the accuracy, or IoU, of every class under each model, over the classes from the commonest to the rarest.

    Of several runs of a model, the points are their mean, the bars their standard deviation. With many classes, a line
    shows the mean over neighboring ones.

    Args:
        names: Of the K classes.
        counts: Training images or pixels of each, shown below on a logarithmic axis. None: the classes stay in their
            order.
        models: Title -> a value per class, (K,), or those of several runs, (S, K); NaN where there is none.
        measure: Label of the values' axis.
        unit: Label of the counts' axis.

    Raises:
        ValueError: No model, or values or counts that are not one per class.
    """
    check_models(models)
    number, are_many = len(names), len(names) > MAX_NAMES
    runs = {title: _runs(title, values, number) for title, values in models.items()}
    order = list(range(number))
    numbers = None if counts is None else per_class('counts', counts, number)
    if numbers is not None:
        order = np.argsort(-numbers, kind='stable').tolist()
    width = 5.2 if are_many else min(max(3.4, 1.2 + 0.3 * number), PAGE_WIDTH)
    below = 0.0 if are_many else max(0.0, 0.71 * width_of(names) - 0.35)  # the classes' names, at an angle
    figure = new_figure(width, below + (2.3 if counts is None else 3.0))
    if counts is None:
        lowest = upper = figure.subplots()
    else:
        upper, lowest = figure.subplots(2, 1, sharex=True, gridspec_kw=dict(height_ratios=(2.6, 1)))
    for place, (title, values) in enumerate(runs.items()):
        # Side by side: equal values of two models would cover each other.
        shift = 0.0 if are_many else 0.5 * ((place + 0.5) / len(runs) - 0.5)
        _draw_runs(upper, np.arange(number) + shift, values[:, order], place, title, are_many)
    upper.set(ylabel=measure, ylim=(0, 100))
    upper.tick_params(axis='x', length=0)
    upper.grid(axis='y', color='0.9', lw=0.6)
    lowest.set(xlabel='class' if counts is None else 'class, from the commonest to the rarest')
    lowest.set_xlim(-0.6, number - 0.4)
    if numbers is not None:
        _draw_counts(lowest, numbers[order], unit, are_many)
    if not are_many:
        name_axis(lowest.xaxis, [names[k] for k in order], rotation=45 if max(map(len, names)) > 2 else 0)
    figure.align_ylabels()
    legend_above(upper)
    return figure


def _draw_runs(axes, places: np.ndarray, runs: np.ndarray, model: int, title: str, are_many: bool) -> None:
    colour, marker = MODEL_COLOURS[model], MODEL_MARKERS[model]
    mean = np.array([run[~np.isnan(run)].mean() if not np.isnan(run).all() else np.nan for run in runs.T])
    if are_many:
        axes.plot(places, mean, marker, color=colour, ms=2, alpha=0.35, mew=0, clip_on=False)
        axes.plot(places, _running_mean(mean), color=colour, lw=1.5, label=title)
        return
    spread = np.std(runs, axis=0, ddof=1) if len(runs) > 1 else None
    options = dict(color=colour, fmt=marker, ms=4, elinewidth=1, capsize=2, label=title, clip_on=False)
    end_bars_with_axis(axes.errorbar(places, mean, yerr=spread, **options))


def _draw_counts(axes, counts: np.ndarray, unit: str, are_many: bool) -> None:
    axes.bar(np.arange(len(counts)), counts, width=1.0 if are_many else 0.7, color='0.6')
    axes.set(ylabel=unit, yscale='log')
    # From a power of ten: bars that start at the smallest count would not show it.
    axes.set_ylim(bottom=10 ** np.floor(np.log10(max(counts[counts > 0].min() / 1.5, 1))) if counts.any() else 1)


def _runs(title: str, values: Sequence, number: int) -> np.ndarray:
    """Return the values of one or several runs as (S, K)."""
    runs = np.atleast_2d(np.asarray(values, dtype=float))
    check(runs.ndim == 2 and runs.shape[1] == number, title, runs.shape, f'a value for each of the {number} classes')
    return runs


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over a tenth of the classes around each, without those that are NaN."""
    half = max(len(values) // 20, 1)
    windows = [values[max(k - half, 0) : k + half + 1] for k in range(len(values))]
    return np.array([np.nanmean(window) if not np.isnan(window).all() else np.nan for window in windows])
