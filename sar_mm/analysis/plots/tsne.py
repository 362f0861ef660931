from typing import Any, Dict, List, Optional, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ...checks import check, check_seed
from .labels import LINE, lines_of, width_of, wrapped
from .style import MAX_COLOURS, PAGE_WIDTH, check_models, class_colours, new_figure, per_class, styled


@styled
def plot_tsne(
    models: Dict[str, Tuple[np.ndarray, np.ndarray, Optional[np.ndarray]]],
    names: Sequence[str],
    seed: int = 0,
    panel_size: float = 2.7,
) -> Figure:
    """Draw a t-SNE of each model's features, with its anchors, where it has any, embedded among them as stars.

    Panels that would make the figure wider than a page begin another row.

    Args:
        models: Title -> (features (N, C), class indices (N,), anchors (K, C) or None). A row of zeros is an anchor
            that was never set.
        names: Of the K classes.
        seed: Of the t-SNE.
        panel_size: Side of a panel in inches.

    Raises:
        ValueError: No model, fewer than three features, or rows, labels and classes that do not belong together.
    """
    check_models(models)
    check_seed(seed)
    titles = [wrapped(title, panel_size - 0.1, points=9) for title in models]
    keys = len(names) + 1 if len(names) <= MAX_COLOURS else 0
    key_width = 0.5 + (width_of([*names, 'semantic anchor']) if keys else 0.4)
    columns = max(1, min(len(models), int((PAGE_WIDTH - key_width) / panel_size)))
    rows = -(-len(models) // columns)
    height = rows * (panel_size + 0.1 + LINE * lines_of(titles)) + (0.0 if keys else 0.3)
    height = max(height, 0.16 * keys + 0.2)  # the legend may be higher than the panels
    figure = new_figure(panel_size * columns + key_width, height)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes[len(models) :]:
        ax.set_axis_off()
    colours = class_colours(len(names))
    for ax, title, (features, labels, anchors) in zip(axes, titles, models.values()):
        features, labels = np.asarray(features, dtype=float), np.asarray(labels)
        check(features.ndim == 2 and len(features) > 2, 'features', features.shape, 'at least three rows (N, C)')
        check(labels.shape == features.shape[:1], 'labels', labels.shape, f'one label for each of {len(features)} rows')
        check(labels.min() >= 0 and labels.max() < len(names), 'labels', labels, f'classes in [0, {len(names)})')
        stars = np.zeros(0, dtype=int)
        if anchors is not None:
            anchors = per_class('anchors', anchors, len(names), 'row')
            stars = np.flatnonzero(anchors.any(axis=1))
            features = np.concatenate([features, anchors[stars]])
        places = _embed(features, seed)
        # In random order: class by class, the last one would cover the others.
        points = np.random.default_rng(seed).permutation(len(labels))
        ax.scatter(*places[points].T, s=7, c=colours[labels[points]], lw=0, alpha=0.8, rasterized=True)
        size = 90 if len(names) <= MAX_COLOURS else 25
        ax.scatter(*places[len(labels) :].T, s=size, marker='*', c=colours[stars], ec='black', lw=0.7, zorder=3)
        ax.set(title=title, xticks=[], yticks=[], aspect='equal', adjustable='datalim')
        ax.spines[:].set_visible(True)
        ax.spines[:].set_color('0.6')
    _add_class_key(figure, axes, names, colours, any(anchors is not None for _, _, anchors in models.values()))
    return figure


def _embed(features: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if min(features.shape) > 50:  # as van der Maaten & Hinton (JMLR 2008) do, to suppress noise and save time
        features = PCA(50, random_state=seed).fit_transform(features)
    perplexity = min(30, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init='pca', random_state=seed).fit_transform(features)


def _add_class_key(figure: Figure, axes: Sequence[Axes], names: Sequence[str], colours, has_anchors: bool) -> None:
    """Add one legend, or colour bar of class numbers, for all panels."""
    star = Line2D([], [], ls='', marker='*', ms=10, mfc='white', mec='black', mew=0.8, label='semantic anchor')
    handles: List[Line2D] = []
    if len(names) <= MAX_COLOURS:
        dots = zip(names, colours)
        handles += [Line2D([], [], ls='', marker='o', ms=4, mew=0, color=colour, label=name) for name, colour in dots]
    else:
        norm = BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names))
        scale = matplotlib.cm.ScalarMappable(norm, ListedColormap(colours))
        bar = figure.colorbar(scale, ax=list(axes), label='class', ticks=MaxNLocator(5, integer=True), pad=0.02)
        bar.outline.set_linewidth(0.6)
        bar.minorticks_off()
    if has_anchors:
        handles.append(star)
    if handles:
        place: Any = 'outside right center' if len(names) <= MAX_COLOURS else 'outside lower center'
        figure.legend(handles=handles, loc=place, frameon=False, handletextpad=0.3, labelspacing=0.35)
