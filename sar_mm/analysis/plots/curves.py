from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from matplotlib.figure import Figure

from .style import COLUMN_WIDTH, MODEL_COLOURS, check_models, legend_above, new_figure, styled

Curve = Tuple[Sequence[float], Sequence[float]]


@styled
def plot_curves(models: Dict[str, List[Curve]], measure: str, steps: str = 'iteration') -> Figure:
    """Draw a quantity of a training over its iterations: each run as a thin line, the mean of several as a thick one.

    The mean is over the runs at the iterations that all of them have. The axis is logarithmic where all values are
    positive and the largest is more than 30 times the smallest.

    Args:
        models: Title -> for each run, its iterations and values; NaN where a value is none. A model without a curve
            keeps its color.
        measure: Label of the values' axis.
        steps: Label of the iterations' axis.

    Raises:
        ValueError: No model, or more than there are colours.
    """
    check_models(models)
    figure = new_figure(COLUMN_WIDTH, 2.3)
    axes = figure.subplots()
    drawn: List[float] = []
    for (title, curves), colour in zip(models.items(), MODEL_COLOURS):
        several = len(curves) > 1
        style: Any = dict(lw=0.6, alpha=0.5) if several else dict(lw=1.3, label=title)
        for places, values in curves:
            drawn += [value for value in values if np.isfinite(value)]
            points: Any = dict(marker='.', ms=4) if len(places) <= 12 and not several else {}
            axes.plot(places, values, color=colour, **points, **style)
        if several:
            places, mean = _mean(curves)
            axes.plot(places, mean, color=colour, lw=1.6, label=title)
    if drawn and min(drawn) > 0 and max(drawn) > 30 * min(drawn):
        axes.set_yscale('log')
    elif drawn and min(drawn) == max(drawn):
        axes.set_ylim(drawn[0] - 0.5, drawn[0] + 0.5)
    axes.set(xlabel=steps, ylabel=measure)
    axes.grid(axis='y', color='0.9', lw=0.6)
    legend_above(axes, [title for title, curves in models.items() if curves])
    return figure


def _mean(curves: List[Curve]) -> Curve:
    values = [dict(zip(*curve)) for curve in curves]
    places = sorted(set.intersection(*map(set, values)))
    return places, [float(np.mean([each[place] for each in values])) for place in places]
