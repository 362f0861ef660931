from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from matplotlib.figure import Figure

from .labels import LINE, lines_of, wrapped
from .style import (
    COLUMN_WIDTH,
    MODEL_COLOURS,
    MODEL_MARKERS,
    check_models,
    end_at,
    end_bars_with_axis,
    new_figure,
    styled,
)

NAME_WIDTH = 1.4  # inches, at most


@styled
def plot_scores(
    models: Dict[str, Sequence[float]], measure: str, bounds: Optional[Tuple[float, float]] = None
) -> Figure:
    """Draw a score of several models: each run as a small point, and their mean with the standard deviation.

    Args:
        models: Title -> the score of each run.
        measure: Label of the axis.
        bounds: The smallest and the largest score that there can be; axis and error bars go no further.

    Raises:
        ValueError: No model, or more than there are colours.
    """
    check_models(models)
    names = [wrapped(title, NAME_WIDTH) for title in models]
    figure = new_figure(COLUMN_WIDTH, 0.75 + max(0.28, LINE * lines_of(names) + 0.1) * len(models))
    axes = figure.subplots()
    drawn: List[float] = []
    for place, (scores, colour, marker) in enumerate(zip(models.values(), MODEL_COLOURS, MODEL_MARKERS)):
        values = np.asarray(scores, dtype=float)
        values = values[~np.isnan(values)]
        drawn += values.tolist()
        small: Any = dict(color=colour, ms=3, alpha=0.6, mew=0)
        if len(values) > 1:
            axes.plot(values, np.full(len(values), place + 0.22), marker, clip_on=False, **small)
        if len(values):
            spread = values.std(ddof=1) if len(values) > 1 else None
            options: Any = dict(fmt=marker, color=colour, ms=5, elinewidth=1, capsize=2.5, clip_on=False)
            end_bars_with_axis(axes.errorbar(values.mean(), place, xerr=spread, **options))
    axes.set_yticks(range(len(models)), names)
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_xlabel(measure)
    axes.margins(x=0.12)
    axes.set_xlim(end_at(bounds, axes.get_xlim(), drawn))
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
    axes.grid(axis='x', color='0.9', lw=0.6)
    axes.set_axisbelow(True)
    return figure
