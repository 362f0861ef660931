"""Draw docs/figures/sar_idea.png, the picture of the idea in the README: `make docs`."""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from shapes import ANCHOR, INK, STOCK, arrow, box  # noqa: E402

CLASSES = ('#4c78a8', '#54a24b', '#b279a2')


def draw_flow(axes) -> None:
    """The stock model in the upper row, what training with anchors adds, dashed, in the lower ones."""
    top, middle, low = 4.4, 2.6, 0.8
    size = dict(width=1.8, height=0.9)
    box(axes, (1.0, top), 'images', STOCK, **size)
    box(axes, (3.5, top), 'backbone,\nneck', STOCK, **size)
    box(axes, (6.0, top), 'features  $f$', STOCK, **size)
    box(axes, (9.5, top), 'task\nclassifier  $h$', STOCK, **size)
    for start, end in ((1.9, 2.6), (4.4, 5.1), (6.9, 8.6)):
        arrow(axes, (start, top), (end, top), STOCK)
    arrow(axes, (10.4, top + 0.22), (11.1, top + 0.22), STOCK)
    axes.text(11.2, top + 0.22, '$L_{task}$', va='center', fontsize=15, color=STOCK)

    dashed = dict(size, style='--')
    box(axes, (1.0, low), 'predefined\nanchors  $P$', ANCHOR, **dashed)
    box(axes, (3.5, low), 'projector  $g$', ANCHOR, **dashed)
    box(axes, (6.0, low), 'embedded\nanchors  $A$', ANCHOR, **dashed)
    box(axes, (6.0, middle), 'moving\naverage  $S$', ANCHOR, **dashed)
    box(axes, (9.0, middle), 'gate', ANCHOR, **dict(dashed, width=1.4))
    for start, end in ((1.9, 2.6), (4.4, 5.1)):
        arrow(axes, (start, low), (end, low), ANCHOR, '--')
    arrow(axes, (6.0, low + 0.46), (6.0, middle - 0.46), ANCHOR, '--')
    arrow(axes, (6.0, middle + 0.46), (6.0, top - 0.46), ANCHOR, '--')
    axes.text(5.85, (middle + top) / 2, '$L_{pull}$', ha='right', va='center', fontsize=15, color=ANCHOR)
    axes.plot([6.9, 10.15], [low, low], color=ANCHOR, ls='--', lw=1.7)
    arrow(axes, (10.15, low), (10.15, top - 0.46), ANCHOR, '--')
    arrow(axes, (10.4, top - 0.22), (11.1, top - 0.22), ANCHOR, '--')
    axes.text(11.2, top - 0.24, '$L_{anchor}$', va='center', fontsize=15, color=ANCHOR)
    arrow(axes, (9.0, top - 0.46), (9.0, middle + 0.46), ANCHOR, '--')
    arrow(axes, (8.3, middle), (6.92, middle), ANCHOR, '--')
    note = 'open once $h$ classifies\nall anchors right,\nwith confidence'
    axes.text(9.0, 2.05, note, ha='center', va='top', fontsize=10, color=INK, linespacing=1.3)
    axes.text(0.1, 2.85, 'blue: the stock model', fontsize=11, color=STOCK)
    axes.text(0.1, 2.4, 'dashed: dropped at inference', fontsize=11, color=ANCHOR)
    axes.set(xlim=(0, 12.4), ylim=(0.25, 4.95), aspect='equal')
    axes.axis('off')


def draw_space(axes) -> None:
    """A sketch of the feature space: a rare class (few points) lies as far from the others as the common ones."""
    rng = np.random.default_rng(3)
    angles = np.pi / 2 + 2 * np.pi * np.arange(3) / 3
    for angle, color, count in zip(angles, CLASSES, (40, 30, 5)):
        center = np.array([np.cos(angle), np.sin(angle)])
        points = center * 0.72 + rng.normal(scale=0.16, size=(count, 2))
        axes.scatter(*points.T, s=16, color=color, alpha=0.75, lw=0)
        for point in points[:4]:
            style = dict(arrowstyle='->', color=color, alpha=0.7, lw=0.9, shrinkB=8)
            axes.annotate('', center, point, arrowprops=style)
        axes.scatter(*center, s=190, marker='*', color=ANCHOR, edgecolor='white', zorder=3)
    caption = 'features (dots, one class is rare)\nare pulled to the anchors $S$ (stars)'
    axes.text(0, -1.1, caption, ha='center', va='top', fontsize=10.5, color=INK)
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.75, 1.35), aspect='equal')
    axes.axis('off')


def main() -> None:
    figure, (flow, space) = plt.subplots(1, 2, figsize=(13, 4.2), width_ratios=(3.2, 1))
    draw_flow(flow)
    draw_space(space)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix('.png'), dpi=110, bbox_inches='tight')


if __name__ == '__main__':
    main()
