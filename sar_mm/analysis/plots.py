"""Figures of feature spaces for papers and reports; needs matplotlib, and scikit-learn for the t-SNE.

Every function returns a :class:`matplotlib.figure.Figure`, for ``figure.savefig('x.png')`` or ``.pdf``, without pyplot
and its global state.
"""

from typing import Dict, List, Optional, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..checks import check, check_seed

STYLE = {
    'font.size': 8,
    'axes.titlesize': 9,
    'axes.labelsize': 8,
    'xtick.labelsize': 8,
    'ytick.labelsize': 8,
    'legend.fontsize': 8,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.linewidth': 0.6,
    'pdf.fonttype': 42,
}
# Okabe & Ito's colours, which colour-blind readers can distinguish, and a marker each, for print in grey.
MODEL_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
MODEL_MARKERS = ('o', 's', '^', 'D', 'v', 'P')
NO_VALUE = '0.88'
# The largest numbers of classes with names on an axis and joined points, and with a colour each.
MAX_NAMES = 30
MAX_COLOURS = 20
# Inches: the text block of a page, and a character of 8 points.
PAGE_WIDTH = 7.2
CHARACTER = 0.065


@rc_context(STYLE)
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
    _check_models(models)
    panels = []
    for title, (means, anchors) in models.items():
        means = _per_class('means', means, len(names), 'row')
        panels.append((f'{title}\nclass means', means, means, 'classes'))
        if anchors is not None:
            anchors = _per_class('anchors', anchors, len(names), 'row')
            panels.append((f'{title}\nanchors', anchors, anchors, 'anchors'))
            panels.append((f'{title}\nmeans × anchors', means, anchors, 'means × anchors'))
    figure, axes = _heat_map_axes(len(panels), names)
    colours = matplotlib.colormaps['RdBu_r'].with_extremes(bad=NO_VALUE)
    for ax, (title, left, right, kind) in zip(axes, panels):
        cosine = _cosines(left, right)
        image = ax.imshow(cosine, cmap=colours, vmin=-1, vmax=1, interpolation='nearest')
        ax.set_title(f'{title}\n{_summary(cosine, kind)}', linespacing=1.3)
        ax.spines[:].set_visible(False)
        _name_axis(ax.xaxis, names, rotation=90 if max(map(len, names)) > 2 else 0)
        _name_axis(ax.yaxis, names)
    bar = figure.colorbar(image, ax=axes, label='cosine', ticks=(-1, -0.5, 0, 0.5, 1), aspect=18, pad=0.02)
    bar.outline.set_linewidth(0.6)
    return figure


@rc_context(STYLE)
def plot_accuracy_by_frequency(
    names: Sequence[str],
    counts: Sequence[int],
    models: Dict[str, Sequence[float]],
    measure: str = 'accuracy (%)',
    unit: str = 'training images',
) -> Figure:
    """Draw the accuracy, or IoU, of every class under each model, over the classes from the commonest to the rarest.

    With many classes, the line is the mean over neighbouring classes.

    Args:
        names: Of the K classes.
        counts: Training images or pixels of each, shown below on a logarithmic axis.
        models: Title -> a value per class, NaN where there is none.
        measure: Label of the values' axis.
        unit: Label of the counts' axis.

    Raises:
        ValueError: No model, or values or counts that are not one per class.
    """
    _check_models(models)
    counts = _per_class('counts', counts, len(names))
    order = np.argsort(-counts, kind='stable')
    place = np.arange(len(names))
    are_many = len(names) > MAX_NAMES
    figure = _figure(width=5.2 if are_many else min(max(3.4, 1.2 + 0.3 * len(names)), 7.0), height=3.2)
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw=dict(height_ratios=(2.6, 1)))
    for (title, values), colour, marker in zip(models.items(), MODEL_COLOURS, MODEL_MARKERS):
        values = _per_class(title, values, len(names))[order]
        if are_many:
            upper.plot(place, values, marker, color=colour, ms=2, alpha=0.35, mew=0, clip_on=False)
            upper.plot(place, _running_mean(values), color=colour, lw=1.5, label=title)
        else:
            upper.plot(place, values, marker=marker, color=colour, ms=4, lw=1.2, label=title, clip_on=False)
    upper.set(ylabel=measure, ylim=(0, 100))
    upper.grid(axis='y', color='0.9', lw=0.6)
    upper.legend(frameon=False, ncols=len(models), loc='lower center', bbox_to_anchor=(0.5, 1.0), borderaxespad=0.2)
    lower.bar(place, counts[order], width=1.0 if are_many else 0.7, color='0.6')
    lower.set(ylabel=unit, yscale='log', xlabel='class, from the commonest to the rarest')
    # From a power of ten: bars that start at the smallest count would not show it.
    lower.set_ylim(bottom=10 ** np.floor(np.log10(max(counts[counts > 0].min() / 1.5, 1))) if counts.any() else 1)
    lower.set_xlim(-0.6, len(names) - 0.4)
    if not are_many:
        sorted_names = [names[k] for k in order]
        _name_axis(lower.xaxis, sorted_names, rotation=45 if max(map(len, names)) > 2 else 0)
    figure.align_ylabels()
    return figure


@rc_context(STYLE)
def plot_tsne(
    models: Dict[str, Tuple[np.ndarray, np.ndarray, Optional[np.ndarray]]],
    names: Sequence[str],
    seed: int = 0,
    panel_size: float = 2.7,
) -> Figure:
    """Draw a t-SNE of each model's features, with its anchors, where it has any, embedded among them as stars.

    Args:
        models: Title -> (features (N, C), class indices (N,), anchors (K, C) or None). A row of zeros is an anchor
            that was never set.
        names: Of the K classes.
        seed: Of the t-SNE.
        panel_size: Side of a panel in inches.

    Raises:
        ValueError: No model, fewer than three features, or rows, labels and classes that do not belong together.
    """
    _check_models(models)
    check_seed(seed)
    keys = len(names) + 1 if len(names) <= MAX_COLOURS else 0
    height = max(panel_size + 0.3, 0.16 * keys + 0.2)  # the legend may be higher than the panels
    figure = _figure(panel_size * len(models) + 0.5 + CHARACTER * max(map(len, [*names, 'semantic anchor'])), height)
    axes = figure.subplots(1, len(models), squeeze=False)[0]
    colours = class_colours(len(names))
    for ax, (title, (features, labels, anchors)) in zip(axes, models.items()):
        features, labels = np.asarray(features, dtype=float), np.asarray(labels)
        check(features.ndim == 2 and len(features) > 2, 'features', features.shape, 'at least three rows (N, C)')
        check(labels.shape == features.shape[:1], 'labels', labels.shape, f'one label for each of {len(features)} rows')
        check(labels.min() >= 0 and labels.max() < len(names), 'labels', labels, f'classes in [0, {len(names)})')
        stars = np.zeros(0, dtype=int)
        if anchors is not None:
            anchors = _per_class('anchors', anchors, len(names), 'row')
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


def class_colours(number: int) -> np.ndarray:
    """Return a colour per class, (number, 4): tab10, tab20 with its dark colours first, else a continuous map."""
    if number <= 10:
        return matplotlib.colormaps['tab10'](np.arange(number))
    if number <= MAX_COLOURS:
        return matplotlib.colormaps['tab20'](np.r_[0:20:2, 1:20:2][:number])
    return matplotlib.colormaps['turbo'](np.linspace(0.03, 0.97, number))


def _figure(width: float, height: float, layout: str = 'constrained') -> Figure:
    return FigureCanvasAgg(Figure(figsize=(width, height), dpi=200, layout=layout)).figure


def _heat_map_axes(panels: int, names: Sequence[str]) -> Tuple[Figure, List[Axes]]:
    """Return axes for square heat maps: in a row where legible names fit on a page so, else in two columns."""
    are_named = len(names) <= MAX_NAMES
    side = max(1.4, 0.14 * len(names)) if are_named else 1.45
    name_length = CHARACTER * max(map(len, names)) if are_named else 0.25
    frame = name_length + 0.9  # the names and the label on the left, the colour bar on the right
    columns = panels if frame + panels * (side + 0.1) <= PAGE_WIDTH else min(panels, 2)
    rows = -(-panels // columns)
    size = frame + columns * (side + 0.1), rows * (side + 0.6) + name_length + 0.25
    figure = _figure(*size, layout='compressed')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, ax in enumerate(axes):
        if number >= panels:
            ax.remove()
            continue
        is_lowest, is_first = number + columns >= panels, number % columns == 0
        ax.tick_params(labelbottom=is_lowest, labelleft=is_first)
        ax.set(xlabel='class' if is_lowest else '', ylabel='class' if is_first else '')
    return figure, list(axes[:panels])


def _check_models(models: Dict) -> None:
    check(0 < len(models) <= len(MODEL_COLOURS), 'models', list(models), f'1 to {len(MODEL_COLOURS)} models')


def _per_class(name: str, values: Sequence, number: int, what: str = 'value') -> np.ndarray:
    """Return one value or row per class as an array; a ValueError for another number of them."""
    values = np.asarray(values, dtype=float)
    is_one_each = values.ndim == (2 if what == 'row' else 1) and len(values) == number
    check(is_one_each, name, values.shape, f'a {what} for each of the {number} classes')
    return values


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


def _name_axis(axis, names: Sequence[str], rotation: int = 0) -> None:
    if len(names) > MAX_NAMES:
        axis.set_major_locator(MaxNLocator(5, integer=True))
        return
    axis.set_ticks(range(len(names)), names, rotation=rotation)
    axis.set_tick_params(length=0)
    if rotation == 45:
        for label in axis.get_ticklabels():
            label.set(ha='right', rotation_mode='anchor')


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over a tenth of the classes around each, without those that are NaN."""
    half = max(len(values) // 20, 1)
    windows = [values[max(k - half, 0) : k + half + 1] for k in range(len(values))]
    return np.array([np.nanmean(window) if not np.isnan(window).all() else np.nan for window in windows])


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
        place = 'outside right center' if len(names) <= MAX_COLOURS else 'outside lower center'
        figure.legend(handles=handles, loc=place, frameon=False, handletextpad=0.3, labelspacing=0.35)
