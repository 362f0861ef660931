from typing import Dict, List, Optional, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import MAX_NAMES, NO_VALUE, PAGE_WIDTH, check_models, name_axis, new_figure, per_class, styled, width_of


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
    panels = []
    for title, (means, anchors) in models.items():
        means = per_class('means', means, len(names), 'row')
        panels.append((f'{title}\nclass means', means, means, 'classes'))
        if anchors is not None:
            anchors = per_class('anchors', anchors, len(names), 'row')
            panels.append((f'{title}\nanchors', anchors, anchors, 'anchors'))
            panels.append((f'{title}\nmeans × anchors', means, anchors, 'means × anchors'))
    figure, axes = _heat_map_axes(len(panels), names)
    colours = matplotlib.colormaps['RdBu_r'].with_extremes(bad=NO_VALUE)
    for ax, (title, left, right, kind) in zip(axes, panels):
        cosine = _cosines(left, right)
        image = ax.imshow(cosine, cmap=colours, vmin=-1, vmax=1, interpolation='nearest')
        ax.set_title(f'{title}\n{_summary(cosine, kind)}', linespacing=1.3)
        ax.spines[:].set_visible(False)
        name_axis(ax.xaxis, names, rotation=90 if max(map(len, names)) > 2 else 0)
        name_axis(ax.yaxis, names)
    bar = figure.colorbar(image, ax=axes, label='cosine', ticks=(-1, -0.5, 0, 0.5, 1), aspect=18, pad=0.02)
    bar.outline.set_linewidth(0.6)
    return figure


def _heat_map_axes(panels: int, names: Sequence[str]) -> Tuple[Figure, List[Axes]]:
    """Return axes for square heat maps: in a row where legible names fit on a page so, else in two columns."""
    are_named = len(names) <= MAX_NAMES
    side = max(1.4, 0.14 * len(names)) if are_named else 1.45
    name_length = width_of(names) if are_named else 0.25
    frame = name_length + 0.9  # the names and the label on the left, the colour bar on the right
    columns = panels if frame + panels * (side + 0.1) <= PAGE_WIDTH else min(panels, 2)
    rows = -(-panels // columns)
    size = frame + columns * (side + 0.1), rows * (side + 0.6) + name_length + 0.25
    figure = new_figure(*size, layout='compressed')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, ax in enumerate(axes):
        if number >= panels:
            ax.remove()
            continue
        is_lowest, is_first = number + columns >= panels, number % columns == 0
        ax.tick_params(labelbottom=is_lowest, labelleft=is_first)
        ax.set(xlabel='class' if is_lowest else '', ylabel='class' if is_first else '')
    return figure, list(axes[:panels])


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
