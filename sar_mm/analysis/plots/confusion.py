from typing import Dict, Sequence

import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from ...checks import check
from .labels import LINE, lines_of, width_of, wrapped
from .style import MAX_NAMES, NO_VALUE, check_models, name_axis, new_figure, styled

MAX_NUMBERS = 12  # classes with numbers in the cells


@styled
def plot_confusion(names: Sequence[str], models: Dict[str, np.ndarray]) -> Figure:
    """Draw the confusion matrix of each model: of every true class (row), the share predicted as each class (column).

    Colours grow with the square root of the share, so that errors of a few percent can be seen beside the diagonal.

    Args:
        names: Of the K classes.
        models: Title -> (K, K), how many images or pixels of class i were predicted as class j.

    Raises:
        ValueError: No model, or a matrix of another size.
    """
    check_models(models)
    number, are_named = len(names), len(names) <= MAX_NAMES
    side = max(2.3, (0.24 if number <= MAX_NUMBERS else 0.15) * number) if are_named else 2.9
    name_length = width_of(names) if are_named else 0.25
    titles = [wrapped(title, side, points=9) for title in models]
    height = side + name_length + 0.6 + LINE * lines_of(titles)
    figure = new_figure(name_length + 0.9 + len(models) * (side + 0.15), height, layout='compressed')
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    colours = matplotlib.colormaps['Blues'].with_extremes(bad=NO_VALUE)
    for axes, shown, (title, counts) in zip(panels, titles, models.items()):
        counts = np.asarray(counts, dtype=float)
        check(counts.shape == (number, number), title, counts.shape, f'a matrix ({number}, {number})')
        with np.errstate(invalid='ignore'):
            share = 100 * counts / counts.sum(axis=1, keepdims=True)  # NaN for a class without an image
        image = axes.imshow(share, cmap=colours, norm=PowerNorm(0.5, 0, 100), interpolation='nearest')
        axes.set(title=shown, xlabel='predicted class')
        axes.spines[:].set_visible(False)
        name_axis(axes.xaxis, names, rotation=90 if max(map(len, names)) > 2 else 0)
        name_axis(axes.yaxis, names)
        if number <= MAX_NUMBERS:
            _write_numbers(axes, share)
    panels[0].set_ylabel('true class')
    ticks = (0, 5, 20, 50, 100)
    bar = figure.colorbar(image, ax=list(panels), label='share of the true class (%)', ticks=ticks, aspect=18, pad=0.02)
    bar.outline.set_linewidth(0.6)
    bar.minorticks_off()
    return figure


def _write_numbers(axes, share: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.5:
            colour = 'white' if value > 40 else 'black'
            axes.text(column, row, f'{value:.0f}', ha='center', va='center', fontsize=6, color=colour)
