"""Boxes and arrows of the drawings in this folder."""

from typing import Tuple

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

STOCK, ANCHOR, INK, GRAY = '#4c78a8', '#d9622b', '#333333', '#8a8a8a'
Point = Tuple[float, float]


def box(
    axes: Axes, center: Point, text: str, color: str, width: float, height: float, style: str = '-', size: float = 11
) -> None:
    """Draw a rounded box around a text."""
    (x, y), pad = center, 0.06
    patch = FancyBboxPatch(
        (x - width / 2 + pad, y - height / 2 + pad), width - 2 * pad, height - 2 * pad, f'round,pad={pad}', lw=1.6
    )
    patch.set(edgecolor=color, facecolor=to_rgba(color, 0.12), linestyle=style)
    axes.add_patch(patch)
    axes.text(x, y, text, ha='center', va='center', fontsize=size, color=INK, linespacing=1.4)


def arrow(axes: Axes, start: Point, end: Point, color: str, style: str = '-', bend: float = 0.0) -> None:
    """Draw an arrow; ``bend`` curves it."""
    patch = FancyArrowPatch(
        start, end, arrowstyle='-|>', mutation_scale=14, shrinkA=0, shrinkB=0, connectionstyle=f'arc3,rad={bend}'
    )
    patch.set(color=color, linestyle=style, linewidth=1.7)
    axes.add_patch(patch)
