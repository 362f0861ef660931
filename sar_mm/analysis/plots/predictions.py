from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .labels import LINE, columns_for, lines_of, wrapped
from .style import MAX_COLOURS, PAGE_WIDTH, check_models, class_colours, new_figure, styled

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
    columns = 4
    rows = -(-len(pictures) // columns)
    width = PAGE_WIDTH / columns - 0.1
    said = [[(wrapped(text, width, 7), colour) for text, colour in _said(names, models, each)] for each in pictures]
    lines = max(sum(lines_of([text]) for text, _ in each) for each in said)
    figure = new_figure(PAGE_WIDTH, rows * (1.15 + LINE * lines + 0.2))
    figure.get_layout_engine().set(h_pad=0.08)
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.set_axis_off()
        if number >= len(pictures):
            continue
        axes.imshow(pictures[number].image, interpolation='nearest')
        place = 3
        for text, colour in said[number]:
            options = dict(xycoords='axes fraction', textcoords='offset points', ha='center', va='top', fontsize=7)
            axes.annotate(text, (0.5, 0), (0, -place), color=colour, **options)
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
    height = len(pictures) * (width * ratio + 0.16) + LINE * lines_of(titles) + 0.1 + 0.17 * -(-len(shown) // columns)
    figure = new_figure(width * len(titles), height)
    panels = figure.subplots(len(pictures), len(titles), squeeze=False)
    for row, picture in zip(panels, pictures):
        row[0].imshow(picture.image, interpolation='nearest')
        row[1].imshow(_coloured(picture.labels, colours), interpolation='nearest')
        for axes, title in zip(row[2:], models):
            labels, share = picture.models[title]
            # Where nothing counts, the prediction is left out as well.
            axes.imshow(_coloured(np.where(picture.labels < 0, -1, labels), colours), interpolation='nearest')
            axes.set_xlabel(f'{100 * share:.0f} % right', fontsize=7, labelpad=2)
    for axes, title in zip(panels[0], titles):
        axes.set_title(title, fontsize=8)
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    if shown:
        dots = [Line2D([], [], ls='', marker='s', ms=5, mew=0, color=colours[k], label=names[k]) for k in shown]
        figure.legend(handles=dots, loc='outside lower center', ncols=columns, frameon=False, handletextpad=0.3)
    return figure


def _maps(picture: Segmented) -> List[np.ndarray]:
    return [picture.labels, *(labels for labels, _ in picture.models.values())]


def _coloured(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    white = np.ones((1, 3))
    return np.concatenate([colours, white])[np.where(labels < 0, len(colours), labels)]
