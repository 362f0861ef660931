from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
    line = 0.14
    figure = new_figure(PAGE_WIDTH, rows * (1.15 + line * (len(models) + 1) + 0.15))
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.set_axis_off()
        if number >= len(pictures):
            continue
        picture = pictures[number]
        axes.imshow(picture.image, interpolation='nearest')
        lines = [(f'true: {names[picture.label]}', 'black')]
        for title in models:
            predicted, probability = picture.models[title]
            colour = RIGHT if predicted == picture.label else WRONG
            lines.append((f'{title}: {names[predicted]} ({100 * probability:.0f} %)', colour))
        for place, (text, colour) in enumerate(lines):
            offset = (0, -3 - 10 * place)
            options = dict(xycoords='axes fraction', textcoords='offset points', ha='center', va='top', fontsize=7)
            axes.annotate(text, (0.5, 0), offset, color=colour, **options)
    return figure


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
    titles = ['image', 'labels', *models]
    ratio = np.mean([picture.image.shape[0] / picture.image.shape[1] for picture in pictures])
    width = min(1.5, PAGE_WIDTH / len(titles))
    shown = sorted({int(k) for picture in pictures for each in _maps(picture) for k in np.unique(each) if k >= 0})
    keys = len(shown) if len(shown) <= MAX_COLOURS else 0
    figure = new_figure(width * len(titles), len(pictures) * (width * ratio + 0.16) + 0.25 + 0.17 * -(-keys // 5))
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
    if keys:
        dots = [Line2D([], [], ls='', marker='s', ms=5, mew=0, color=colours[k], label=names[k]) for k in shown]
        figure.legend(handles=dots, loc='outside lower center', ncols=5, frameon=False, handletextpad=0.3)
    return figure


def _maps(picture: Segmented) -> List[np.ndarray]:
    return [picture.labels, *(labels for labels, _ in picture.models.values())]


def _coloured(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    white = np.ones((1, 3))
    return np.concatenate([colours, white])[np.where(labels < 0, len(colours), labels)]
