import warnings

import numpy as np
import pytest

pytest.importorskip('matplotlib')

from matplotlib import font_manager  # noqa: E402

from sar_mm.analysis.plots import fonts as module  # noqa: E402
from sar_mm.analysis.plots import plot_scores, save_figure  # noqa: E402
from sar_mm.analysis.plots.fonts import families_for  # noqa: E402


def test_families_for__letters_of_the_default_font():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert families_for(['road', 'Straße', 'чаша']) == ['DejaVu Sans']


def test_families_for__takes_an_installed_font_that_has_the_letters(monkeypatch):
    entry = [font_manager.FontEntry(fname=f'{name}.ttf', name=name) for name in ('None', 'Some', 'Most')]
    has = {'None.ttf': '', 'Some.ttf': '道', 'Most.ttf': '道路'}
    monkeypatch.setattr(module, '_installed', lambda: entry)
    monkeypatch.setattr(module, '_letters_of', lambda path: frozenset(has.get(path, 'sky')))
    assert families_for(['sky', '道 路']) == ['DejaVu Sans', 'Most']
    with pytest.warns(UserWarning, match="no installed font has the letters '天' of the class names"):
        assert families_for(['天路']) == ['DejaVu Sans', 'Most']


def test_letters_of__fonts_without_letters_to_draw():
    paths = [font.fname for font in font_manager.fontManager.ttflist]
    for path in paths:
        if 'lastresort' in path.lower():
            assert module._letters_of(path) == frozenset()
    assert 'a' in module._letters_of(font_manager.findfont('DejaVu Sans'))


@pytest.mark.parametrize('suffix', ['pdf', 'png', 'svg'])
def test_save_figure__same_bytes_every_time(suffix, tmp_path):
    paths = [tmp_path / f'{number}.{suffix}' for number in range(2)]
    for path in paths:
        save_figure(plot_scores(dict(stock=[1.0, 2.0], SAR=[3.0]), 'mIoU'), path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    if suffix == 'pdf':
        assert b'/Type3' not in first and b'DejaVuSans' in first
    if suffix == 'svg':
        assert b'<text' not in first  # letters are outlines


def test_plots__draw_names_in_other_letters():
    if not set('道路') <= set().union(*(module._letters_of(font.fname) for font in module._installed())):
        pytest.skip('no font with Chinese letters is installed')
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # matplotlib warns of a letter that it draws as a box
        figure = plot_scores({'道路': [1.0, 2.0]}, 'mIoU')
        figure.canvas.draw()
    assert np.asarray(figure.canvas.buffer_rgba()).std() > 5
