from typing import Dict, Sequence

import numpy as np
from matplotlib.figure import Figure

from .style import COLUMN_WIDTH, MODEL_COLOURS, MODEL_MARKERS, check_models, new_figure, styled


@styled
def plot_scores(models: Dict[str, Sequence[float]], measure: str) -> Figure:
    """Draw a score of several models: each run as a small point, and their mean with the standard deviation.

    Args:
        models: Title -> the score of each run.
        measure: Label of the axis.

    Raises:
        ValueError: No model, or more than there are colours.
    """
    check_models(models)
    figure = new_figure(COLUMN_WIDTH, 0.75 + 0.28 * len(models))
    axes = figure.subplots()
    for place, (scores, colour, marker) in enumerate(zip(models.values(), MODEL_COLOURS, MODEL_MARKERS)):
        values = np.asarray(scores, dtype=float)
        values = values[~np.isnan(values)]
        if len(values) > 1:
            axes.plot(values, np.full(len(values), place + 0.22), marker, color=colour, ms=2.5, alpha=0.6, mew=0)
        if len(values):
            spread = values.std(ddof=1) if len(values) > 1 else None
            axes.errorbar(values.mean(), place, xerr=spread, fmt=marker, color=colour, ms=5, elinewidth=1, capsize=2.5)
    axes.set_yticks(range(len(models)), models)
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_xlabel(measure)
    axes.margins(x=0.12)
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
    axes.grid(axis='x', color='0.9', lw=0.6)
    axes.set_axisbelow(True)
    return figure
