import re
from html.parser import HTMLParser

import pytest

pytest.importorskip('jinja2')
pytest.importorskip('matplotlib')

from sar_mm.analysis.plots import plot_scores  # noqa: E402
from sar_mm.analysis.report.figures import Drawn, anchor_figures, loss_figures, score_figures  # noqa: E402
from sar_mm.analysis.report.page import ModelRow, Section, breakable, render, save_figures  # noqa: E402
from sar_mm.analysis.report.runs import read_models  # noqa: E402
from sar_mm.analysis.report.scores import score_rows  # noqa: E402

MODELS = [ModelRow('stock', 'res_net', [], 2), ModelRow('SAR', 'sar_res_net', ['a.b = 1'], 1)]
RUN = dict(model='stock', seed='0', trained='20 iterations', checkpoint='none', folder='<b>&')


class Elements(HTMLParser):
    """All start tags, and a check that each is closed."""

    EMPTY = ('meta', 'path', 'use', 'image', 'rect', 'br', 'wbr')

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope='module')
def sections():
    models = dict(stock=[{'mIoU': 40.0}], SAR=[{'mIoU': 47.0}])
    figures = [
        Drawn(f'score_{k}', 'A <caption>.', plot_scores(dict(stock=[1.0, k], SAR=[2.0]), 'mIoU')) for k in (3, 4)
    ]
    return [Section('Scores', 'A & b.', score_rows(models), figures), Section('Nothing')]


def test_render__is_complete_and_needs_nothing_else(sections):
    page = render('A < b', MODELS, [RUN], sections, '1.0')
    elements = Elements(page).found
    for tag, attributes in elements:
        assert tag not in ('script', 'link', 'iframe', 'object')
        links = [value for name, value in attributes.items() if name in ('src', 'href', 'xlink:href')]
        assert all(link.startswith(('#', 'data:')) for link in links)
    assert '@import' not in page and not re.search(r'url\((?!#)', page)
    ids = [attributes['id'] for _, attributes in elements if 'id' in attributes]
    assert len(ids) == len(set(ids))
    targets = {
        value[1:] for _, a in elements for k, value in a.items() if k in ('href', 'xlink:href') and value[0] == '#'
    }
    assert targets | set(re.findall(r'url\(#([^)]+)\)', page)) <= set(ids)
    assert sum(tag == 'svg' for tag, _ in elements) == 2
    assert '<h1>A &lt; b</h1>' in page and '&lt;b&gt;&amp;' in page and 'A &lt;caption&gt;.' in page
    assert '<td class="number best">47.00</td>' in page and 'Nothing' not in page


def test_render__full_names_of_the_models_once(sections):
    page = render('A', MODELS, [RUN], sections, '1.0').replace('<wbr>', '')
    assert page.count('sar_res_net') == 1 and page.count('a.b = 1') == 1 and '--names A,B' in page
    # Without settings that differ, there is no column of them.
    assert 'settings' not in render('A', MODELS[:1], [RUN], sections, '1.0')


def test_breakable__after_the_parts_of_a_name():
    assert breakable('a_b-c/<d>.') == 'a_<wbr>b-<wbr>c/<wbr>&lt;d&gt;.'


def test_render__same_bytes_every_time(sections):
    assert len({render('A', MODELS, [RUN], sections, '1.0') for _ in range(2)}) == 1


def test_save_figures__as_pdf_and_png(sections, tmp_path):
    paths = save_figures(sections, tmp_path / 'figures')
    assert [path.name for path in paths] == ['score_3.pdf', 'score_3.png', 'score_4.pdf', 'score_4.png']
    assert paths[0].read_bytes().startswith(b'%PDF') and paths[1].read_bytes().startswith(b'\x89PNG')


def test_figures__of_logs(work_folder, step, validation):
    def lines(**more):
        return [
            step(10, 2.0, **more),
            validation(10, 99.0),
            step(20, 1.0, **more),
            {**validation(20, 60.0), 'accuracy': 60.0},
        ]

    anchors = dict(loss_anchor=0.5, loss_pull=0.0, anchor_gate=0.0, anchor_cos=0.0)
    folders = [work_folder('a', lines()), work_folder('b', lines(**anchors), name='sar_net')]
    models = read_models(folders)
    assert [drawn.name for drawn in loss_figures(models)] == ['loss_task', 'loss_anchor', 'loss_pull']
    # The gate never opened, so that there are no cosines.
    assert [drawn.name for drawn in anchor_figures(models)] == ['anchor_gate']
    assert [drawn.name for drawn in score_figures(models)] == ['curve_accuracy_top1']
    stock = read_models(folders[:1])
    assert anchor_figures(stock) == [] and [drawn.name for drawn in loss_figures(stock)] == ['loss_task']
