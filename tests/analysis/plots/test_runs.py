"""Figures of runs: curves, scores, confusion matrices, predictions."""

import numpy as np
import pytest

pytest.importorskip('matplotlib')

from matplotlib.colors import to_rgba  # noqa: E402

from sar_mm.analysis.plots import (  # noqa: E402
    plot_classified,
    plot_confusion,
    plot_curves,
    plot_scores,
    plot_segmented,
)
from sar_mm.analysis.plots.predictions import RIGHT, WRONG, Classified, Segmented  # noqa: E402
from sar_mm.analysis.plots.style import MODEL_COLOURS  # noqa: E402

NAMES = ['road', 'sky', 'dog']


def test_plot_curves__mean_is_over_the_iterations_that_all_runs_have():
    (axes,) = plot_curves(dict(SAR=[([1, 2, 3], [1.0, 2.0, 3.0]), ([1, 3, 4], [3.0, 5.0, 7.0])]), 'loss').axes
    *runs, mean = axes.lines
    assert [line.get_xdata().tolist() for line in runs] == [[1, 2, 3], [1, 3, 4]]
    assert mean.get_xdata().tolist() == [1, 3] and mean.get_ydata().tolist() == [2.0, 4.0]
    assert mean.get_linewidth() > runs[0].get_linewidth()


def test_plot_curves__a_model_without_a_curve_keeps_its_color():
    figure = plot_curves(dict(stock=[], SAR=[([1, 2], [0.1, 0.2])]), 'anchor_gate')
    (line,) = figure.axes[0].lines
    assert line.get_color() == MODEL_COLOURS[1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['SAR']


@pytest.mark.parametrize(
    ('values', 'scale'),
    [([1.0, 0.01], 'log'), ([1.0, 0.0], 'linear'), ([1.0, 0.5], 'linear'), ([-1.0, 90.0], 'linear')],
)
def test_plot_curves__scale(values, scale):
    (axes,) = plot_curves(dict(a=[([1, 2], values)]), 'loss').axes
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low <= min(values) and max(values) <= high


def test_plot_scores__mean_and_standard_deviation():
    (axes,) = plot_scores(dict(stock=[70.0, 72.0, 74.0], SAR=[80.0, np.nan]), 'mIoU').axes
    stock, sar = axes.containers
    assert stock.lines[0].get_xdata() == [72.0] and sar.lines[0].get_xdata() == [80.0]
    (bar,) = stock.lines[2][0].get_segments()
    assert (bar[1, 0] - bar[0, 0]) / 2 == pytest.approx(2.0)
    assert not sar.lines[2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['stock', 'SAR']


def test_plots__axes_end_where_no_value_can_be():
    scores = plot_scores(dict(stock=[99.0, 99.9, 100.0], SAR=[95.0, 100.0]), 'accuracy (%)', (0, 100))
    low, high = scores.axes[0].get_xlim()
    assert 0 < low < 95 and high == 100
    for bars in scores.axes[0].containers:  # points are drawn whole, error bars end with the axis
        line, caps, lines = bars
        assert not line.get_clip_on() and all(part.get_clip_on() for part in (*caps, *lines))
    curve = [([1, 2, 3], [0.0, 100.0, 98.0])]
    assert plot_curves(dict(a=curve), 'accuracy (%)', bounds=(0, 100)).axes[0].get_ylim() == (0, 100)
    # A value outside is shown all the same.
    low, high = plot_curves(dict(a=[([1, 2], [50.0, 104.0])]), 'accuracy (%)', bounds=(0, 100)).axes[0].get_ylim()
    assert 0 < low < 50 and high == 104


def test_plot_confusion__shows_shares_of_the_true_classes():
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 3]])
    panel = plot_confusion(NAMES, dict(SAR=counts)).axes[0]
    shown = np.ma.filled(panel.images[0].get_array(), np.nan)
    assert shown[0].tolist() == [80, 20, 0] and shown[2].tolist() == [25, 0, 75] and np.isnan(shown[1]).all()
    assert sorted(text.get_text() for text in panel.texts) == ['20', '25', '75', '80']
    # A share of a few percent has a color of its own.
    norm = panel.images[0].norm
    assert norm(0) == 0 and norm(100) == 1 and norm(4) == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r'`SAR` to be a matrix \(2, 2\)'):
        plot_confusion(NAMES[:2], dict(SAR=counts))


def test_plot_classified__says_what_each_model_predicts():
    picture = Classified(np.zeros((4, 4, 3), dtype=np.uint8), 2, dict(stock=(0, 0.6), SAR=(2, 0.91)))
    axes = plot_classified(NAMES, ['stock', 'SAR'], [picture] * 5).axes
    assert len(axes) == 5 and all(ax.images for ax in axes)
    texts = {text.get_text(): text.get_color() for text in axes[0].texts}
    assert texts == {'true: dog': 'black', 'stock: road (60\xa0%)': WRONG, 'SAR: dog (91\xa0%)': RIGHT}


def test_plot_segmented__leaves_out_what_does_not_count():
    palette = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    labels, predicted = np.array([[0, 1], [-1, 2]]), np.array([[0, 0], [1, 2]])
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    figure = plot_segmented(NAMES, ['SAR'], [Segmented(image, labels, dict(SAR=(predicted, 2 / 3)))], palette)
    shown = [np.asarray(ax.images[0].get_array()) for ax in figure.axes]
    red, green, blue, white = ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1])
    assert shown[1].tolist() == [[red, green], [white, blue]]
    assert shown[2].tolist() == [[red, red], [white, blue]]
    assert [text.get_text() for text in figure.axes[2].texts] == ['67 % right']
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == NAMES
    assert to_rgba(legend.legend_handles[0].get_color()) == (1, 0, 0, 1)
