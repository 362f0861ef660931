"""What all figures share: sizes, colours, the names of classes on an axis, and files for papers."""

from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Optional, Sequence, Tuple, Union

import matplotlib
import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...checks import check
from .fonts import families_for

STYLE: Any = {
    'font.size': 8,
    'axes.titlesize': 9,
    'axes.labelsize': 8,
    'xtick.labelsize': 8,
    'ytick.labelsize': 8,
    'legend.fontsize': 8,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.linewidth': 0.6,
}
# When a figure is written: fonts that journals take, letters as outlines in SVG, and the same bytes every time.
OUTPUT: Any = {'pdf.fonttype': 42, 'svg.fonttype': 'path', 'svg.hashsalt': 'sar_mm'}
# Okabe & Ito's colours, which colour-blind readers can distinguish, and a marker each, for print in grey.
MODEL_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
MODEL_MARKERS = ('o', 's', '^', 'D', 'v', 'P')
NO_VALUE = '0.88'
# The largest numbers of classes with names on an axis, and with a colour each.
MAX_NAMES = 30
MAX_COLOURS = 20
# Inches: the text block of a page, and a column of it.
PAGE_WIDTH = 7.2
COLUMN_WIDTH = 3.4


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Give a function the figures' settings, and fonts that have the letters of its ``names`` and ``models``."""
    parameters = signature(draw)

    @wraps(draw)
    def draw_in_style(*args: Any, **kwargs: Any) -> Figure:
        given = parameters.bind(*args, **kwargs).arguments
        texts = map(str, [*given.get('names', ()), *given.get('models', ())])
        with rc_context({**STYLE, 'font.family': families_for(texts)}):
            return draw(*args, **kwargs)

    return draw_in_style


def new_figure(width: float, height: float, layout: Any = 'constrained') -> Figure:
    return FigureCanvasAgg(Figure(figsize=(width, height), dpi=200, layout=layout)).figure


def save_figure(figure: Figure, path: Union[str, Path, Any], **options: Any) -> None:
    """Write a figure as a file for papers; the format follows from the suffix, or ``format`` for an open file.

    Fonts are embedded as TrueType in ``.pdf``, and are outlines in ``.svg``. The same figure gives the same bytes.
    """
    kind = options.get('format') or Path(path).suffix[1:]
    dates = dict(pdf=dict(CreationDate=None), svg=dict(Date=None))
    with rc_context(OUTPUT):
        figure.savefig(path, metadata=dates.get(kind), **options)


def class_colours(number: int) -> np.ndarray:
    """Return a colour per class, (number, 4): tab10, tab20 with its dark colours first, else a continuous map."""
    if number <= 10:
        return matplotlib.colormaps['tab10'](np.arange(number))
    if number <= MAX_COLOURS:
        return matplotlib.colormaps['tab20'](np.r_[0:20:2, 1:20:2][:number])
    return matplotlib.colormaps['turbo'](np.linspace(0.03, 0.97, number))


def check_models(models: Dict) -> None:
    check(0 < len(models) <= len(MODEL_COLOURS), 'models', list(models), f'1 to {len(MODEL_COLOURS)} models')


def per_class(name: str, values: Any, number: int, what: str = 'value') -> np.ndarray:
    """Return one value or row per class as an array; a ValueError for another number of them."""
    values = np.asarray(values, dtype=float)
    is_one_each = values.ndim == (2 if what == 'row' else 1) and len(values) == number
    check(is_one_each, name, values.shape, f'a {what} for each of the {number} classes')
    return values


def end_at(bounds: Optional[Tuple[float, float]], limits: Tuple[float, float], values: Iterable[float]):
    """Return the limits of an axis without what no value can reach, such as more than 100 %; all values stay inside."""
    values = [value for value in values if np.isfinite(value)]
    if bounds is None or not values:
        return limits
    low, high = min(bounds[0], *values), max(bounds[1], *values)
    return max(limits[0], low), min(limits[1], high)


def end_bars_with_axis(bars: ErrorbarContainer) -> None:
    """Clip error bars and their caps, but not the points: one at 100 % is to be seen whole."""
    for part in (each for group in bars[1:] if group for each in group):
        part.set_clip_on(True)


def name_axis(axis, names: Sequence[str], rotation: int = 0) -> None:
    """Write the classes' names at an axis; with many classes, some of their numbers."""
    if len(names) > MAX_NAMES:
        axis.set_major_locator(MaxNLocator(5, integer=True))
        return
    axis.set_ticks(range(len(names)), names, rotation=rotation)
    axis.set_tick_params(length=0)
    if rotation == 45:
        for label in axis.get_ticklabels():
            label.set(ha='right', rotation_mode='anchor')
