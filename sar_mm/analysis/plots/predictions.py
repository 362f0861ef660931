from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .labels import LINE, columns_for, lines_of, wrapped
from .style import MAX_COLOURS, PAGE_WIDTH, check_models, class_colours, new_figure, styled

# In a figure of classified images, and how high an image is in it, in inches.
COLUMNS, IMAGE_HEIGHT = 4, 1.15
# A text below an image, centered, at a place in points from its lower edge.
BELOW: Any = dict(xycoords='axes fraction', textcoords='offset points', ha='center', va='top', fontsize=7)
RIGHT, WRONG = '#00734d', '#b03a00'


class Classified(NamedTuple):
    """An image with its class, and what each model predicts: title -> (class, probability of it)."""

    image: np.ndarray
    label: int
    models: Dict[str, Tuple[int, float]]


class Segmented(NamedTuple):
    """An image with its label map (H, W), and what each model predicts: title -> (map, share of right pixels)."""

    image: np.ndarray
    labels: np.ndarray
    models: Dict[str, Tuple[np.ndarray, float]]


@styled
def plot_classified(names: Sequence[str], models: Sequence[str], pictures: Sequence[Classified]) -> Figure:
    """Draw images with their class and, below, the class that each model predicts with its probability.

    Args:
        names: Of the K classes.
        models: Titles, in the order of the lines below an image.
        pictures: The images, (H, W, 3) of bytes or of numbers in [0, 1], with what is predicted.

    Raises:
        ValueError: No model.
    """
    check_models(dict.fromkeys(models))
    width = PAGE_WIDTH / COLUMNS
    said = [
        [(wrapped(text, width - 0.1, 7), colour) for text, colour in _said(names, models, picture)]
        for picture in pictures
    ]
    text_height = LINE * max(sum(lines_of([text]) for text, _ in each) for each in said)
    height = IMAGE_HEIGHT + text_height + 0.2
    figure = new_figure(PAGE_WIDTH, -(-len(pictures) // COLUMNS) * height, layout=None)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, COLUMNS)
        axes = _axes_at(figure, column * width + 0.05, row * height + 0.05, width - 0.1, IMAGE_HEIGHT)
        axes.imshow(picture.image, interpolation='nearest')
        place = 3
        for text, colour in said[number]:
            axes.annotate(text, (0.5, 0), (0, -place), color=colour, **BELOW)
            place += 10 * lines_of([text])
    return figure


def _said(names: Sequence[str], models: Sequence[str], picture: Classified) -> Iterator[Tuple[str, str]]:
    """Yield what is written below a picture, and in which color."""
    yield f'true: {names[picture.label]}', 'black'
    for title in models:
        predicted, probability = picture.models[title]
        colour = RIGHT if predicted == picture.label else WRONG
        yield f'{title}: {names[predicted]} ({100 * probability:.0f}\xa0%)', colour


@styled
def plot_segmented(
    names: Sequence[str],
    models: Sequence[str],
    pictures: Sequence[Segmented],
    palette: Optional[Sequence[Sequence[int]]] = None,
) -> Figure:
    """Draw a row for every image: the image, its label map, and the map that each model predicts.

    Args:
        names: Of the K classes.
        models: Titles, in the order of the columns.
        pictures: The images, (H, W, 3), with maps of class indices, -1 where nothing counts.
        palette: The classes' colours, (K, 3) in [0, 255]; None: those of the other figures.

    Raises:
        ValueError: No model.
    """
    check_models(dict.fromkeys(models))
    colours = class_colours(len(names))[:, :3] if palette is None else np.asarray(palette, dtype=float) / 255
    ratio = np.mean([picture.image.shape[0] / picture.image.shape[1] for picture in pictures])
    width = min(1.5, PAGE_WIDTH / (2 + len(models)))
    titles = [wrapped(title, width - 0.08) for title in ('image', 'labels', *models)]
    shown = sorted({int(k) for picture in pictures for each in _maps(picture) for k in np.unique(each) if k >= 0})
    shown = shown if len(shown) <= MAX_COLOURS else []
    columns = columns_for([names[k] for k in shown], width * len(titles))
    side, above, line = width * ratio, LINE * lines_of(titles) + 0.05, 0.17  # inches; a line of the legend
    height = above + len(pictures) * (side + line) + line * -(-len(shown) // columns) + 0.1
    figure = new_figure(width * len(titles), height, layout=None)
    for row, picture in enumerate(pictures):
        maps = [picture.labels, *(picture.models[title][0] for title in models)]
        # Where nothing counts, the prediction is left out as well.
        maps = [_coloured(np.where(picture.labels < 0, -1, labels), colours) for labels in maps]
        for column, (title, image) in enumerate(zip(titles, [picture.image, *maps])):
            axes = _axes_at(figure, column * width + 0.03, above + row * (side + line), width - 0.06, side)
            axes.imshow(image, interpolation='nearest')
            if row == 0:
                axes.set_title(title, fontsize=8, pad=3)
            if column > 1:
                share = picture.models[models[column - 2]][1]
                axes.annotate(f'{100 * share:.0f} % right', (0.5, 0), (0, -2), **BELOW)
    if shown:
        dots = [Line2D([], [], ls='', marker='s', ms=5, mew=0, color=colours[k], label=names[k]) for k in shown]
        figure.legend(handles=dots, loc='lower center', ncols=columns, frameon=False, handletextpad=0.3)
    return figure


def _axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes for an image at a place in inches from the upper left corner of a figure."""
    page = figure.get_figwidth(), figure.get_figheight()
    axes = figure.add_axes((left / page[0], 1 - (top + height) / page[1], width / page[0], height / page[1]))
    axes.set_axis_off()
    axes.set_anchor('S')
    return axes


def _maps(picture: Segmented) -> List[np.ndarray]:
    return [picture.labels, *(labels for labels, _ in picture.models.values())]


def _coloured(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    white = np.ones((1, 3))
    return np.concatenate([colours, white])[np.where(labels < 0, len(colours), labels)]
