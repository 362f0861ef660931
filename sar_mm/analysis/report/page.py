"""A report as one HTML file that needs nothing else: no network, no fonts, no scripts."""

import io
import re
from pathlib import Path
from typing import List, NamedTuple, Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from ..plots import save_figure
from ..plots.style import MODEL_COLOURS, MODEL_MARKERS
from .figures import Drawn
from .scores import Row

# The color and the marker of each model in the figures, as a letter.
_LETTERS = {'o': '●', 's': '■', '^': '▲', 'D': '◆', 'v': '▼', 'P': '✚'}
SIGNS = [(colour, _LETTERS[marker]) for colour, marker in zip(MODEL_COLOURS, MODEL_MARKERS)]


class Section(NamedTuple):
    """A part of the page: text above, then a table of the models, then figures; ``wide`` ones in a row of their own."""

    title: str
    text: str = ''
    rows: Sequence[Row] = ()
    figures: Sequence[Drawn] = ()
    wide: bool = False


class ModelRow(NamedTuple):
    """What the page's first table says of a model; ``settings`` are those that tell it from others of its name."""

    title: str
    config: str
    settings: Sequence[str]
    runs: int


def render(
    title: str, models: Sequence[ModelRow], runs: Sequence[dict], sections: Sequence[Section], version: str
) -> str:
    """Return the page.

    Args:
        title: Heading of the page.
        models: The models, in the order of the tables' columns.
        runs: A dict for every run, as the template shows it.
        sections: The parts of the page; one without a table and figures is left out.
        version: Of this package.
    """
    folder = Path(__file__).parent
    loader = FileSystemLoader(folder)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(svg=as_svg, breakable=breakable)
    shown = [section for section in sections if section.rows or section.figures]
    page = environment.get_template('page.html')
    differ = any(model.settings for model in models)
    values = dict(models=models, differ=differ, signs=SIGNS, runs=runs, sections=shown)
    return page.render(title=title, version=version, **values)


def save_figures(sections: Sequence[Section], folder: Path) -> List[Path]:
    """Write every figure as PDF and PNG; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for drawn in (drawn for section in sections for drawn in section.figures):
        for suffix in ('pdf', 'png'):
            paths.append(folder / f'{drawn.name}.{suffix}')
            save_figure(drawn.figure, paths[-1])
    return paths


def breakable(name: str) -> Markup:
    """Return a name that a browser may break after each part."""
    return Markup(re.sub(r'(?<=[_\-=./])(?=.)', '<wbr>', str(escape(name))))


def as_svg(drawn: Drawn) -> Markup:
    """Return a figure as an SVG element, whose ids are its own among all of the page."""
    text = svg_of(drawn.figure)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf'\g<1>{drawn.name}-', text)
    (width,) = re.search(r'viewBox="0 0 ([\d.]+) ', text).groups()
    # In CSS pixels, of which 96 are an inch; the SVG counts points. Below three quarters of it, the page scrolls.
    natural = float(width) * 4 / 3
    size = f'style="width: min({natural:.0f}px, max(100%, {0.75 * natural:.0f}px))"'
    text = re.sub(r'<svg [^>]*viewBox', f'<svg role="img" aria-label="{drawn.name}" {size} viewBox', text, count=1)
    return Markup(text)


def svg_of(figure: Figure) -> str:
    file = io.StringIO()
    save_figure(figure, file, format='svg')
    text = file.getvalue()
    return re.sub(r'<metadata>.*?</metadata>', '', text[text.index('<svg') :], flags=re.DOTALL)
