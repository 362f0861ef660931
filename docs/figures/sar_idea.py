"""Draw docs/figures/sar_idea.png, the picture of the idea in the README: `make docs`."""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

STOCK, ANCHOR, INK = '#4c78a8', '#e4772e', '#333333'
CLASSES = ('#4c78a8', '#54a24b', '#b279a2')


def box(ax, x: float, y: float, text: str, colour: str, width: float = 1.6) -> None:
    patch = FancyBboxPatch((x - width / 2, y - 0.33), width, 0.66, boxstyle='round,pad=0.06', lw=1.6, ec=colour)
    patch.set_facecolor(matplotlib.colors.to_rgba(colour, 0.12))
    ax.add_patch(patch)
    ax.text(x, y, text, ha='center', va='center', fontsize=11, color=INK)


def arrow(ax, start, end, colour: str, style: str = '-', bend: float = 0.0) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle='-|>', mutation_scale=14, lw=1.8, color=colour, linestyle=style,
            connectionstyle=f'arc3,rad={bend}', shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip


def draw_flow(ax) -> None:
    """Boxes and arrows: the stock model in the upper row, what training with anchors adds in the lower one."""
    box(ax, 0.9, 2.6, 'images', STOCK)
    box(ax, 3.2, 2.6, 'backbone,\nneck', STOCK)
    box(ax, 5.5, 2.6, 'features  $f$', STOCK)
    box(ax, 8.3, 1.7, 'task\nclassifier  $h$', STOCK)
    box(ax, 0.9, 0.8, 'predefined\nanchors  $P$', ANCHOR)
    box(ax, 3.2, 0.8, 'projector  $g$', ANCHOR)
    box(ax, 5.5, 0.8, 'semantic\nanchors', ANCHOR)
    for y, colour in ((2.6, STOCK), (0.8, ANCHOR)):
        arrow(ax, (1.8, y), (2.3, y), colour)
        arrow(ax, (4.1, y), (4.6, y), colour)
    arrow(ax, (6.4, 2.6), (7.4, 1.9), STOCK)
    arrow(ax, (6.4, 0.8), (7.4, 1.5), ANCHOR)
    arrow(ax, (9.2, 1.9), (10.0, 2.6), STOCK)
    arrow(ax, (9.2, 1.5), (10.0, 0.8), ANCHOR)
    ax.text(10.1, 2.6, '$L_{task}$', va='center', fontsize=14, color=STOCK)
    ax.text(10.1, 0.8, '$L_{anchor}$', va='center', fontsize=14, color=ANCHOR)
    arrow(ax, (5.5, 2.2), (5.5, 1.24), ANCHOR, style='--')
    ax.text(5.65, 1.72, '$L_{pull}$', va='center', fontsize=14, color=ANCHOR)
    ax.text(0.1, -0.05, 'orange: training only, dropped at inference', fontsize=10, color=ANCHOR)
    ax.set(xlim=(-0.1, 11.1), ylim=(-0.3, 3.2), aspect='equal')
    ax.axis('off')


def draw_space(ax) -> None:
    """A sketch of the feature space: a rare class (few points) lies as far from the others as the common ones."""
    rng = np.random.default_rng(3)
    angles = np.pi / 2 + 2 * np.pi * np.arange(3) / 3
    for angle, colour, count in zip(angles, CLASSES, (40, 30, 5)):
        centre = np.array([np.cos(angle), np.sin(angle)])
        points = centre * 0.72 + rng.normal(scale=0.16, size=(count, 2))
        ax.scatter(*points.T, s=16, color=colour, alpha=0.75, lw=0)
        for point in points[:4]:
            ax.annotate('', centre, point, arrowprops=dict(arrowstyle='->', color=colour, alpha=0.7, lw=0.9, shrinkB=8))
        ax.scatter(*centre, s=190, marker='*', color=ANCHOR, edgecolor='white', zorder=3)
    ax.text(0, -1.32, 'features (dots, one class is rare) are\npulled to their anchors (stars)', ha='center', va='top')
    ax.set(xlim=(-1.4, 1.4), ylim=(-1.75, 1.35), aspect='equal')
    ax.axis('off')


def main() -> None:
    figure, (flow, space) = plt.subplots(1, 2, figsize=(12, 3.6), width_ratios=(3.3, 1))
    draw_flow(flow)
    draw_space(space)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix('.png'), dpi=110, bbox_inches='tight')


if __name__ == '__main__':
    main()
