"""Draw docs/figures/reading_the_log.png, the normal curves of docs/reading_the_log.md.

The upper row is a run of the quickstart, whose lines of the log are in reading_the_log.jsonl:

    python tools/train.py configs/quickstart/sar_resnet18_1xb64-300iter_digits-lt.py --work-dir work_dirs/log \\
        --cfg-options default_hooks.logger.interval=5 randomness.seed=0
    python docs/figures/reading_the_log.py work_dirs/log/*/vis_data/scalars.json

The lower row is a longer run of docs/results/long_tailed.jsonl; without an argument, both are drawn again.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
LINES = HERE / 'reading_the_log.jsonl'
LONG = HERE.parent / 'results' / 'long_tailed.jsonl'
CONFIG, SEED = 'sar_resnet8-ce_1xb128-4k_fashion-mnist-lt-if100', 1
KEYS = ('step', 'task', 'loss_anchor', 'loss_pull', 'anchor_acc', 'anchor_conf', 'anchor_gate')
KEYS += ('anchor_cos', 'anchor_cos_mean')
COLORS = dict(task='#4c78a8', loss='#4c78a8', anchor_acc='#4c78a8', anchor_cos='#4c78a8', loss_anchor='#e4772e')
COLORS.update(anchor_conf='#e4772e', anchor_cos_mean='#e4772e', anchor_gate='#54a24b', loss_pull='#54a24b')


def keep_lines(file: Path) -> None:
    """Write what is drawn of the lines of training in a scalars.json to reading_the_log.jsonl."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    kept = [{key: round(line[key], 4) for key in KEYS} for line in lines if 'anchor_gate' in line]
    LINES.write_text(''.join(json.dumps(line) + '\n' for line in kept))


def draw(ax, curves: dict, names: tuple, title: str, legend: float = 0.5) -> None:
    for name in names:
        style = dict(drawstyle='steps-pre', linestyle='--') if name == 'anchor_gate' else {}
        ax.plot(curves['step'], curves[name], color=COLORS[name], lw=1.6, label=name, **style)
    ax.set_title(title, fontsize=10, loc='left')
    ax.set_xlabel('iteration', fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, frameon=False, loc='center right', bbox_to_anchor=(1, legend))
    ax.set_ylim(bottom=0)
    ax.spines[['top', 'right']].set_visible(False)


def main() -> None:
    if len(sys.argv) > 1:
        keep_lines(Path(sys.argv[1]))
    lines = [json.loads(line) for line in LINES.read_text().splitlines()]
    short = {key: [line[key] for line in lines] for key in KEYS}
    runs = [json.loads(line) for line in LONG.read_text().splitlines()]
    (long,) = [run['curves'] for run in runs if (run['config'], run['seed'], run['variant']) == (CONFIG, SEED, None)]
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.8), constrained_layout=True)
    gate = ('anchor_acc', 'anchor_conf', 'anchor_gate')
    draw(axes[0, 0], short, ('task', 'loss_anchor'), 'a  digits, 300 iterations: losses')
    draw(axes[0, 1], short, gate, 'b  the gate opens: the first 60 iterations', legend=0.3)
    axes[0, 1].set_xlim(0, 60)
    draw(axes[0, 2], short, ('anchor_cos', 'anchor_cos_mean', 'loss_pull'), 'c  cosines, and the pull', legend=0.58)
    draw(axes[1, 0], long, ('loss', 'loss_anchor'), 'd  Fashion-MNIST-LT, 4,000 iterations')
    draw(axes[1, 1], long, gate[1:], 'e  confidence falls, and is restored', legend=0.3)
    draw(axes[1, 2], long, ('loss_pull',), 'f  the pull falls, not to 0')
    axes[1, 1].axhline(0.9, color='#888888', lw=0.8, ls=':')
    axes[1, 1].annotate('confidence_threshold', (0, 0.9), xytext=(3, -10), textcoords='offset points', fontsize=7)
    axes[1, 1].set_ylim(0.7, 1.02)
    figure.savefig(HERE / 'reading_the_log.png', dpi=130)


if __name__ == '__main__':
    main()
