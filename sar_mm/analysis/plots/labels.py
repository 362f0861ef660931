"""Names of models and classes in figures: how wide they are, in lines that fit, and as a legend."""

import re
from typing import Any, List, Sequence

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

# Inches: from a line of 8 points to the next one, and what a legend has around a name: its sign and the gap after it.
LINE = 0.145
_SIGN = 0.55


def width_of(texts: Sequence[str], points: float = 8) -> float:
    """Return how many inches the widest text takes, in the font of the figure that is being drawn."""
    font = FontProperties(family=rcParams['font.family'], size=points)
    lines = (line for text in texts for line in text.split('\n'))
    return max((text_to_path.get_text_width_height_descent(line, font, False)[0] / 72 for line in lines), default=0.0)


def wrapped(text: str, inches: float, points: float = 8) -> str:
    """Break a text into lines of at most so many inches: after spaces and ``_-,=./``, else where the width ends."""
    if width_of([text], points) <= inches:
        return text
    lines: List[str] = []
    for part in re.findall(r'.+?(?:[ \n_\-,=./]+|$)', text):
        if lines and width_of([(lines[-1] + part).rstrip()], points) <= inches:
            lines[-1] += part
            continue
        while len(part) > 1 and width_of([part.rstrip()], points) > inches:
            end = next((n for n in range(len(part) - 1, 1, -1) if width_of([part[:n]], points) <= inches), 1)
            lines.append(part[:end])
            part = part[end:]
        lines.append(part)
    return '\n'.join(line.strip() for line in lines)


def lines_of(texts: Sequence[str]) -> int:
    """Return how many lines the text with most of them has."""
    return max((text.count('\n') + 1 for text in texts), default=1)


def legend_above(axes) -> None:
    """Put the names of what an axes shows above all panels, as many in a row as the width takes; the figure grows."""
    handles, names = axes.get_legend_handles_labels()
    figure = axes.figure
    width = figure.get_figwidth()
    labels = [wrapped(name, width - _SIGN) for name in names]
    columns = columns_for(labels, width)
    # A legend is as high as its columns, which are filled one after the other.
    height = LINE * max(sum(label.count('\n') + 1.25 for label in labels[k::columns]) for k in range(columns))
    figure.set_figheight(figure.get_figheight() + height)
    options: Any = dict(frameon=False, ncols=columns, loc='outside upper center', labelspacing=0.35)
    figure.legend(handles, labels, **options)


def columns_for(labels: Sequence[str], width: float) -> int:
    """Return how many entries of a legend fit side by side in so many inches."""
    return max(1, min(len(labels), int(width / (width_of(labels) + _SIGN))))
