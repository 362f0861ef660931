"""Names of models of any length: nothing is cut off, and no name lies on another one."""

from itertools import combinations

import numpy as np
import pytest

pytest.importorskip('matplotlib')

from matplotlib.text import Text  # noqa: E402

from sar_mm.analysis.plots import (  # noqa: E402
    plot_accuracy_by_frequency,
    plot_classified,
    plot_confusion,
    plot_cosines,
    plot_curves,
    plot_scores,
    plot_segmented,
    plot_tsne,
)
from sar_mm.analysis.plots.labels import columns_for, lines_of, width_of, wrapped  # noqa: E402
from sar_mm.analysis.plots.predictions import Classified, Segmented  # noqa: E402
from sar_mm.analysis.plots.style import PAGE_WIDTH  # noqa: E402

LONG = [
    'resnet18-la_1xb128-4k_fashion-mnist-lt-if100-with-a-long-end_version2',
    'sar_resnet18-la_1xb128-4k_fashion-mnist-lt-if100-with-a-long-end + cosine',
    'W' * 60,
]
SHORT = ['stock', 'SAR', 'SAR, cosine']
CLASSES = ['traffic light', 'a long name of a class, with commas', 'road', 'sky', 'person', 'rider', 'wall']


def texts_of(figure):
    """Return what is written in a figure with its place in pixels."""
    figure.canvas.draw()
    outside = set()  # labels of ticks beyond the limits of an axis exist, but are not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval()) if axis.axes.axison else (np.inf, np.inf)
        for places, labels in (
            (axis.get_majorticklocs(), axis.get_majorticklabels()),
            (axis.get_minorticklocs(), axis.get_minorticklabels()),
        ):
            outside.update(label for place, label in zip(places, labels) if not low <= place <= high)
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    found = [text for text in found if text not in outside]
    return [(text.get_text(), text.get_window_extent()) for text in found]


def check_texts(figure):
    width, height = figure.canvas.get_width_height()
    texts = texts_of(figure)
    outside = [t for t, box in texts if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1]
    assert outside == []
    # Boxes of letters have some room around them, and those of names at an angle much more.
    shrunk = [(text, box.padded(-2)) for text, box in texts if text not in CLASSES]
    assert [(a, b) for (a, own), (b, other) in combinations(shrunk, 2) if own.overlaps(other)] == []


def draw(kind, titles):
    generator = np.random.default_rng(0)
    number = len(CLASSES)
    anchors = generator.normal(size=(number, 8))
    labels = np.repeat(np.arange(number), 4)
    features = anchors[labels] + 0.1
    image = np.zeros((8, 12, 3), dtype=np.uint8)
    if kind == 'accuracy':
        return plot_accuracy_by_frequency(
            CLASSES, [9, 7, 5, 3, 2, 1, 1], {title: [[90] * 7, [99] * 7] for title in titles}
        )
    if kind == 'classified':
        pictures = [Classified(image, 1, dict.fromkeys(titles, (0, 0.5)))] * 5
        return plot_classified(CLASSES, titles, pictures)
    if kind == 'confusion':
        return plot_confusion(CLASSES, {title: np.eye(number) for title in titles})
    if kind == 'cosines':
        return plot_cosines(
            CLASSES, {title: (anchors, anchors if place else None) for place, title in enumerate(titles)}
        )
    if kind == 'curves':
        return plot_curves({title: [([1, 2], [2.0, 1.0])] for title in titles}, 'loss')
    if kind == 'scores':
        return plot_scores({title: [70.0, 72.0] for title in titles}, 'mIoU')
    if kind == 'segmented':
        maps = np.arange(96).reshape(8, 12) % number
        return plot_segmented(CLASSES, titles, [Segmented(image, maps, dict.fromkeys(titles, (maps, 1.0)))] * 2)
    return plot_tsne(dict.fromkeys(titles, (features, labels, anchors)), CLASSES)


@pytest.mark.parametrize('titles', [SHORT, LONG, LONG[:1]], ids=['short', 'long', 'one'])
@pytest.mark.parametrize(
    'kind', ['accuracy', 'classified', 'confusion', 'cosines', 'curves', 'scores', 'segmented', 'tsne']
)
def test_plots__names_of_any_length_are_legible(kind, titles):
    figure = draw(kind, titles)
    check_texts(figure)
    shown = ''.join(text for text, _ in texts_of(figure))
    for title in titles:  # all of it is there, whatever the lines
        assert title.replace(' ', '') in shown.replace('\n', '').replace(' ', '')
    if kind != 'confusion':  # a report has one figure of it for each model
        assert figure.get_figwidth() <= PAGE_WIDTH


def test_wrapped__breaks_after_the_parts_of_a_name():
    assert wrapped('SAR', 0.1) == 'S\nA\nR'
    assert wrapped('sar_resnet', width_of(['sar_resnet'])) == 'sar_resnet'
    assert wrapped('sar_resnet-18 two', width_of(['sar_resnet'])) == 'sar_\nresnet-18\ntwo'
    lines = wrapped('W' * 30, 1.0).split('\n')
    assert ''.join(lines) == 'W' * 30 and width_of(lines) <= 1.0 < width_of([lines[0] + 'W'])


def test_width_of__grows_with_the_letters_and_their_size():
    assert width_of(['WW', 'i']) == pytest.approx(2 * width_of(['W']), rel=0.1)
    assert width_of(['W'], points=16) == pytest.approx(2 * width_of(['W']), rel=0.05)
    assert width_of(['a\nWW']) == width_of(['WW']) and width_of([]) == 0.0
    assert (lines_of(['a', 'b\nc']), lines_of([])) == (2, 1)


def test_columns_for__as_many_as_fit():
    assert columns_for(['a', 'b', 'c'], 10.0) == 3
    assert columns_for(['a', 'W' * 100], 3.0) == 1
