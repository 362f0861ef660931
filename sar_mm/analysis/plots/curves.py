from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from matplotlib.figure import Figure

from .labels import legend_above
from .style import COLUMN_WIDTH, MODEL_COLOURS, check_models, end_at, new_figure, styled

Curve = Tuple[Sequence[float], Sequence[float]]


@styled
def plot_curves(
    models: Dict[str, List[Curve]],
    measure: str,
    steps: str = 'iteration',
    bounds: Optional[Tuple[float, float]] = None,
) -> Figure:
    """Draw a quantity of a training over its iterations: each run as a thin line, the mean of several as a thick one.

    The mean is over the runs at the iterations that all of them have. The axis is logarithmic where all values are
    positive and the largest is more than 30 times the smallest.

    Args:
        models: Title -> for each run, its iterations and values; NaN where a value is none. A model without a curve
            keeps its color.
        measure: Label of the values' axis.
        steps: Label of the iterations' axis.
        bounds: The smallest and the largest value that there can be; the axis goes no further.

    Raises:
        ValueError: No model, or more than there are colours.
    """
    check_models(models)
    figure = new_figure(COLUMN_WIDTH, 2.1)
    axes = figure.subplots()
    drawn: List[float] = []
    # Not clipped: all values are inside, and a line at 100 % is to be seen whole.
    for (title, curves), colour in zip(models.items(), MODEL_COLOURS):
        several = len(curves) > 1
        style: Any = dict(lw=0.6, alpha=0.5) if several else dict(lw=1.3, label=title)
        for places, values in curves:
            drawn += [value for value in values if np.isfinite(value)]
            points: Any = dict(marker='.', ms=4) if len(places) <= 12 and not several else {}
            axes.plot(places, values, color=colour, clip_on=False, **points, **style)
        if several:
            places, mean = _mean(curves)
            axes.plot(places, mean, color=colour, clip_on=False, lw=1.6, label=title)
    if drawn and min(drawn) > 0 and max(drawn) > 30 * min(drawn):
        axes.set_yscale('log')
    elif drawn and min(drawn) == max(drawn):
        axes.set_ylim(drawn[0] - 0.5, drawn[0] + 0.5)
    axes.set(xlabel=steps, ylabel=measure, ylim=end_at(bounds, axes.get_ylim(), drawn))
    axes.grid(axis='y', color='0.9', lw=0.6)
    legend_above(axes)
    return figure


def _mean(curves: List[Curve]) -> Curve:
    values = [dict(zip(*curve)) for curve in curves]
    places = sorted(set.intersection(*map(set, values)))
    return places, [float(np.mean([each[place] for each in values])) for place in places]
