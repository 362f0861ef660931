import numpy as np
import pytest

pytest.importorskip('matplotlib')

from matplotlib import rcParams  # noqa: E402
from matplotlib.image import imread  # noqa: E402

from sar_mm.analysis.plots import class_colours, plot_accuracy_by_frequency, plot_cosines, plot_tsne  # noqa: E402

FEW = ['road', 'sky', 'dog']
MANY = [f'class {k}' for k in range(40)]


def make(names, seed=0, per_class=6):
    generator = np.random.default_rng(seed)
    anchors = generator.normal(size=(len(names), 8))
    labels = np.repeat(np.arange(len(names)), per_class)
    features = anchors[labels] + 0.1 * generator.normal(size=(len(labels), 8))
    means = np.stack([features[labels == k].mean(0) for k in range(len(names))])
    return means, anchors, features, labels


def save(figure, path):
    """Save a figure; return its pixels after checking that it has the size it says, and is not blank."""
    figure.savefig(path)
    picture = imread(path)[..., :3]
    width, height = np.round(figure.get_size_inches() * figure.dpi)
    assert abs(picture.shape[1] - width) <= 1 and abs(picture.shape[0] - height) <= 1
    assert picture.std() > 0.05
    # Nothing is cut off: the outermost pixels are white.
    edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    assert all(edge.min() > 0.95 for edge in edges)
    return picture


@pytest.mark.parametrize('names', [FEW, MANY], ids=['few', 'many'])
def test_plot_cosines__panels_show_the_cosines(tmp_path, names):
    means, anchors, _, _ = make(names)
    means[1] = 0
    figure = plot_cosines(names, dict(stock=(anchors, None), SAR=(means, anchors)))
    save(figure, tmp_path / 'cosines.png')
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title().split('\n')[:2] for ax in panels] == [
        ['stock', 'class means'],
        ['SAR', 'class means'],
        ['SAR', 'anchors'],
        ['SAR', 'means × anchors'],
    ]
    shown = np.ma.filled(panels[3].images[0].get_array(), np.nan)
    expected = means[2] @ anchors[0] / np.linalg.norm(means[2]) / np.linalg.norm(anchors[0])
    assert shown[2, 0] == pytest.approx(expected)
    assert np.isnan(shown[1]).all() and not np.isnan(shown[:, 1][[0, 2]]).any()


def test_plot_cosines__titles_say_largest_and_mean():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    figure = plot_cosines(FEW, dict(SAR=(rows, 2 * rows)))
    titles = [ax.get_title().split('\n')[-1] for ax in figure.axes if ax.images]
    assert titles == ['max 0.71, mean 0.47', 'max 0.71, mean 0.47', 'own 1.00']


@pytest.mark.parametrize('names', [FEW, MANY], ids=['few', 'many'])
def test_plot_accuracy_by_frequency__sorts_classes_by_their_counts(tmp_path, names):
    generator = np.random.default_rng(0)
    counts = generator.permutation(np.arange(len(names))) * 10 + 1
    accuracy = generator.uniform(0, 100, len(names))
    accuracy[2] = np.nan
    figure = plot_accuracy_by_frequency(names, counts, dict(stock=accuracy, SAR=accuracy / 2))
    save(figure, tmp_path / 'frequency.png')
    upper, lower = figure.axes
    order = np.argsort(-counts)
    points = upper.lines[0]
    assert np.array_equal(points.get_ydata(), accuracy[order], equal_nan=True)
    if names is FEW:  # nothing lies between two classes
        assert points.get_linestyle() == 'None'
    assert [bar.get_height() for bar in lower.patches] == counts[order].tolist()
    assert lower.get_yscale() == 'log'
    if names is FEW:
        assert [label.get_text() for label in lower.get_xticklabels()] == [names[k] for k in order]


def test_plot_accuracy_by_frequency__of_several_runs():
    runs = np.array([[90.0, 50.0, 20.0], [92.0, 40.0, np.nan], [94.0, 60.0, 10.0]])
    upper, _ = plot_accuracy_by_frequency(FEW, [3, 2, 1], dict(stock=runs, SAR=runs[0])).axes
    stock, sar = upper.containers
    assert stock.lines[0].get_ydata()[:2] == pytest.approx([92.0, 50.0])
    (bars,) = stock.lines[2]
    lengths = [(segment[1, 1] - segment[0, 1]) / 2 for segment in bars.get_segments()[:2]]
    assert lengths == pytest.approx([2.0, 10.0])  # the sample standard deviation
    assert not sar.lines[2]
    assert stock.lines[0].get_xdata()[0] < 0 < sar.lines[0].get_xdata()[0]  # side by side


def test_plot_accuracy_by_frequency__without_counts_keeps_the_order():
    (axes,) = plot_accuracy_by_frequency(FEW, None, dict(a=[1, 3, 2])).axes
    assert axes.lines[0].get_ydata().tolist() == [1, 3, 2]
    assert [label.get_text() for label in axes.get_xticklabels()] == FEW


@pytest.mark.parametrize('names', [FEW, MANY], ids=['few', 'many'])
def test_plot_tsne__shows_every_feature_and_anchor_in_the_colour_of_its_class(tmp_path, names):
    _, anchors, features, labels = make(names)
    anchors[0] = 0  # never set
    figure = plot_tsne(dict(stock=(features, labels, None), SAR=(features, labels, anchors)), names)
    save(figure, tmp_path / 'tsne.png')
    stock, sar = figure.axes[:2]
    assert [len(points.get_offsets()) for points in stock.collections] == [len(labels), 0]
    points, stars = sar.collections
    assert len(points.get_offsets()) == len(labels) and len(stars.get_offsets()) == len(names) - 1
    assert np.allclose(stars.get_facecolors(), class_colours(len(names))[1:])
    # Well separated classes: every anchor lies among its own features.
    order = np.random.default_rng(0).permutation(len(labels))
    if names is FEW:
        for k, star in enumerate(stars.get_offsets(), start=1):
            distance = np.linalg.norm(points.get_offsets() - star, axis=1)
            assert labels[order][distance.argmin()] == k


def test_plot_tsne__same_seed_same_picture(tmp_path):
    _, anchors, features, labels = make(FEW)
    models = dict(SAR=(features, labels, anchors))
    first, second = (save(plot_tsne(models, FEW, seed=3), tmp_path / f'{k}.png') for k in range(2))
    assert np.array_equal(first, second)


def test_plots__leave_no_global_state():
    import sys

    before = dict(rcParams)
    means, anchors, _, _ = make(FEW)
    plot_cosines(FEW, dict(SAR=(means, anchors)))
    assert dict(rcParams) == before
    if 'matplotlib.pyplot' in sys.modules:
        assert sys.modules['matplotlib.pyplot'].get_fignums() == []


@pytest.mark.parametrize('number', [3, 10, 11, 20, 21, 150])
def test_class_colours__differ(number):
    colours = class_colours(number)
    assert colours.shape == (number, 4)
    assert len(np.unique(colours, axis=0)) == number


def test_plots__bad_input():
    means, anchors, features, labels = make(FEW)
    with pytest.raises(ValueError, match='`models` to be 1 to 6 models'):
        plot_cosines(FEW, {})
    with pytest.raises(ValueError, match='`means` to be a row for each of the 2 classes'):
        plot_cosines(FEW[:2], dict(a=(means, None)))
    with pytest.raises(ValueError, match='`counts` to be a value for each of the 3 classes'):
        plot_accuracy_by_frequency(FEW, [1, 2], dict(a=[1, 2, 3]))
    with pytest.raises(ValueError, match='`a` to be a value for each of the 3 classes'):
        plot_accuracy_by_frequency(FEW, [1, 2, 3], dict(a=[1, 2]))
    with pytest.raises(ValueError, match=r'`labels` to be classes in \[0, 2\)'):
        plot_tsne(dict(a=(features, labels, None)), FEW[:2])
    with pytest.raises(ValueError, match='`features` to be at least three rows'):
        plot_tsne(dict(a=(features[:2], labels[:2], None)), FEW)
