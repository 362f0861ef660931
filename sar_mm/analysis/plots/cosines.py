from typing import Dict, List, Optional, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .labels import LINE, lines_of, width_of, wrapped
from .style import MAX_NAMES, NO_VALUE, PAGE_WIDTH, check_models, name_axis, new_figure, per_class, styled

TITLE = 8  # points


@styled
def plot_cosines(names: Sequence[str], models: Dict[str, Tuple[np.ndarray, Optional[np.ndarray]]]) -> Figure:
    """Draw the pairwise cosines of each model's class means and, where it has anchors, of those and between both.

    The title of a heat map has the largest and the mean cosine of different classes, or the mean cosine of the means
    (rows) with the anchors of their own class.

    Args:
        names: Of the K classes.
        models: Title -> (class means (K, C), anchors (K, C) or None). A row of zeros is a class without features or
            an anchor that was never set; its cosines are grey.

    Raises:
        ValueError: No model, or rows that are not one per class.
    """
    check_models(models)
    side = max(1.4, 0.14 * len(names)) if len(names) <= MAX_NAMES else 1.45
    titles = [wrapped(title, side, TITLE) for title in models]
    rows = []
    for title, (means, anchors) in zip(titles, models.values()):
        means = per_class('means', means, len(names), 'row')
        row = [(f'{title}\nclass means', means, means, 'classes')]
        if anchors is not None:
            anchors = per_class('anchors', anchors, len(names), 'row')
            row.append((f'{title}\nanchors', anchors, anchors, 'anchors'))
            row.append((f'{title}\nmeans × anchors', means, anchors, 'means × anchors'))
        rows.append(row)
    figure, axes = _heat_map_axes([len(row) for row in rows], names, side, LINE * lines_of(titles))
    colours = matplotlib.colormaps['RdBu_r'].with_extremes(bad=NO_VALUE)
    for ax, (title, left, right, kind) in zip(axes, [panel for row in rows for panel in row]):
        cosine = _cosines(left, right)
        image = ax.imshow(cosine, cmap=colours, vmin=-1, vmax=1, interpolation='nearest')
        ax.set_title(f'{title}\n{_summary(cosine, kind)}', linespacing=1.3, fontsize=TITLE)
        ax.spines[:].set_visible(False)
        name_axis(ax.xaxis, names, rotation=90 if max(map(len, names)) > 2 else 0)
        name_axis(ax.yaxis, names)
    # As wide in a figure of several rows as in one of a single row.
    aspect = 18 * axes[0].get_gridspec().nrows
    bar = figure.colorbar(image, ax=axes, label='cosine', ticks=(-1, -0.5, 0, 0.5, 1), aspect=aspect, pad=0.02)
    bar.outline.set_linewidth(0.6)
    return figure


def _heat_map_axes(panels: Sequence[int], names: Sequence[str], side: float, title: float) -> Tuple[Figure, List[Axes]]:
    """Return axes for the heat maps of each model: in one row where legible names fit on a page so, else in a row for
    each model, or in two columns."""
    name_length = width_of(names) if len(names) <= MAX_NAMES else 0.25
    frame = name_length + 0.9  # the names and the label on the left, the colour bar on the right
    fits, total = int((PAGE_WIDTH - frame) / (side + 0.1)), sum(panels)
    columns = total if total <= fits else max(panels) if 1 < max(panels) <= fits else min(total, max(fits, 2))
    places: List[int] = []
    for number in panels:
        start = places[-1] + 1 if places else 0
        if columns == max(panels) and start % columns:
            start += columns - start % columns  # each model in a row of its own
        places += range(start, start + number)
    # Names are below the lowest panel of each column.
    lowest = {place for place in places if not any(p > place and (p - place) % columns == 0 for p in places)}
    rows, named = places[-1] // columns + 1, len({place // columns for place in lowest})
    size = frame + columns * (side + 0.1), rows * (side + 0.45 + title) + named * (name_length + 0.25)
    figure = new_figure(*size, layout='compressed')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, ax in enumerate(axes):
        if place not in places:
            ax.remove()
            continue
        is_lowest, is_first = place in lowest, place % columns == 0
        ax.tick_params(labelbottom=is_lowest, labelleft=is_first)
        ax.set(xlabel='class' if is_lowest else '', ylabel='class' if is_first else '')
    return figure, [axes[place] for place in places]


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return all cosines of two sets of rows, NaN for rows of zeros."""
    with np.errstate(invalid='ignore', divide='ignore'):
        units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (left, right)]
    return units[0] @ units[1].T


def _summary(cosine: np.ndarray, kind: str) -> str:
    is_own, is_mixed = np.eye(len(cosine), dtype=bool), kind == 'means × anchors'
    values = cosine[(is_own if is_mixed else ~is_own) & ~np.isnan(cosine)]
    if not len(values):
        return ''
    return f'own {values.mean():.2f}' if is_mixed else f'max {values.max():.2f}, mean {values.mean():.2f}'
