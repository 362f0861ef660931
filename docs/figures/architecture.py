"""Draw docs/figures/architecture.png, the way of a feature through the package, and what uses what: `make docs`."""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from shapes import ANCHOR, GRAY, INK, STOCK, arrow, box  # noqa: E402

STEPS = (  # center, text, color
    ((1.8, 7.0), 'stock head\nforward pass', STOCK),
    ((5.8, 7.0), 'SARHeadMixin\nrecords the input\nof the classifier', ANCHOR),
    ((9.8, 7.0), 'SemanticAnchorHead\nembeds, classifies, gate,\nmoving average S', ANCHOR),
    ((9.8, 5.1), 'SARLoss\nanchor_costs(), pull()', ANCHOR),
    ((5.8, 5.1), 'ops\nanchor_cross_entropy(),\npull_loss()', ANCHOR),
    ((1.8, 5.1), 'dict of losses\nstock ones, loss_anchor,\nloss_pull', STOCK),
)
CHAIN = ('anchors, ops', 'losses', 'anchor_head', 'heads', 'semi,\nbaselines')
OTHERS = ('datasets', 'evaluation', 'engine', 'analysis', 'cli, tools')


def draw_way(axes) -> None:
    """Boxes in the order in which a training step passes through them."""
    for center, text, color in STEPS:
        box(axes, center, text, color, width=3.0, height=1.3, size=10)
    for start, end in (((3.3, 7.0), (4.3, 7.0)), ((7.3, 7.0), (8.3, 7.0))):
        arrow(axes, start, end, ANCHOR)
    arrow(axes, (9.8, 6.35), (9.8, 5.75), ANCHOR)
    for start, end in (((8.3, 5.1), (7.3, 5.1)), ((4.3, 5.1), (3.3, 5.1))):
        arrow(axes, start, end, ANCHOR)
    arrow(axes, (1.8, 6.35), (1.8, 5.75), STOCK)
    axes.text(3.8, 7.15, '$f$', ha='center', fontsize=13, color=INK)
    axes.text(7.75, 7.15, '$f, y, h$', ha='center', fontsize=13, color=INK)
    axes.text(1.95, 6.05, 'task losses', va='center', fontsize=10, color=STOCK)


def draw_packages(axes) -> None:
    """Boxes of the packages; an arrow says what uses what."""
    axes.text(0.3, 3.75, 'an arrow means "uses"', fontsize=11, color=INK)
    for index, name in enumerate(CHAIN):
        x = 1.2 + 2.3 * index
        box(axes, (x, 3.0), name, ANCHOR, width=1.8, height=0.8, size=10.5)
        if index:
            arrow(axes, (x - 0.9, 3.0), (x - 1.4, 3.0), GRAY)
    text = 'not importing models; configs join them by registered names'
    axes.text(0.3, 1.85, text, fontsize=11, color=INK)
    for index, name in enumerate(OTHERS):
        box(axes, (1.2 + 2.3 * index, 1.1), name, GRAY, width=1.8, height=0.8, size=10.5)


def main() -> None:
    figure, axes = plt.subplots(figsize=(9.8, 6.6))
    axes.text(0.3, 7.95, 'one training step', fontsize=11, color=INK)
    draw_way(axes)
    draw_packages(axes)
    axes.set(xlim=(0.1, 11.5), ylim=(0.6, 8.2), aspect='equal')
    axes.axis('off')
    figure.savefig(Path(__file__).with_suffix('.png'), dpi=130, bbox_inches='tight')


if __name__ == '__main__':
    main()
