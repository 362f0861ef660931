"""The trainings behind docs/results.md: run what is missing, and write the tables and figures from their results.

    python docs/results.py --list                      # what there is, and how much of it is done
    python docs/results.py --train full-length noise   # trains what is missing; several processes share the work
    python docs/results.py                             # writes the figures, and the tables that the page has marks for

The results are JSON lines in docs/results/, one per training; see tools/benchmarks/train_configs.py. What was
interrupted is resumed from work_dirs/. The configs' READMEs say where the data come from.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import List, Sequence, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools' / 'benchmarks'))

import matplotlib  # noqa: E402
from experiments import EXPERIMENTS, GATE, ROOT, Experiment  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from measure import write_page  # noqa: E402
from train_configs import order, read_results, render, train_missing  # noqa: E402

from sar_mm import allow_bases  # noqa: E402

PAGE = Path(__file__).with_suffix('.md')
RESULTS = Path(__file__).with_suffix('')


def results_of(experiment: Experiment) -> Path:
    """Return the file of the results of an experiment: that of its task."""
    return RESULTS / f'{experiment.configs[0].split("/")[0]}.jsonl'


def work_dir_of(experiment: Experiment) -> Path:
    return ROOT / 'work_dirs' / experiment.configs[0].split('/')[0]


def done(experiment: Experiment) -> Tuple[List[dict], int]:
    """Return the results of an experiment, and how many trainings it has."""
    results = read_results(results_of(experiment))
    keys = [run.key for run in experiment.runs()]
    return [results[key] for key in keys if key in results], len(keys)


def last(scores: dict) -> dict:
    """Return scores of the last validation, or of the test."""
    return {name: value[-1] if isinstance(value, list) else value for name, value in scores.items()}


def gate_of(run: dict) -> dict:
    """Return the first logged step with an open gate, if there is one."""
    curves = run['curves']
    gates = next((curves[name] for name in curves if name.endswith('anchor_gate')), ())  # of mmseg: decode.anchor_gate
    opened = [step for step, gate in zip(curves['step'], gates) if gate]
    return {GATE: opened[0]} if opened else {}


def table_of(experiment: Experiment) -> str:
    """Return the table of an experiment, and below it how many of its trainings there are if some are missing."""
    results, number = done(experiment)
    missing = '' if len(results) == number else f'{len(results)} of {number} trainings are done.'
    if not results:
        return missing
    shown = [dict(run, scores={**last(run[experiment.scores]), **gate_of(run)}) for run in results]
    table = render(sorted(shown, key=order), list(experiment.columns))
    return f'{table}\n\n{missing}' if missing else table


# ----- Figures

COLOURS = {'stock': '#4c78a8', 'SAR': '#e4772e'}
STYLE = {'font.size': 8, 'axes.spines.top': False, 'axes.spines.right': False}


@matplotlib.rc_context(STYLE)
def draw_scores(experiment: Experiment, columns: Sequence[str]) -> Figure:
    """Draw the scores of the stock configs and their SAR versions: every seed, and means with standard deviations."""
    results, _ = done(experiment)
    stock = [config.split('/')[-1] for config in experiment.configs if '/sar_' not in config]
    figure = Figure(figsize=(3.2 * len(columns), 2.6), layout='constrained')
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axes, column in zip(panels, columns):
        for shift, (name, prefix) in zip((-0.12, 0.12), (('stock', ''), ('SAR', 'sar_'))):
            for place, config in enumerate(stock):
                values = [run['scores'][column] for run in results if run['config'] == prefix + config]
                if values:
                    spread = statistics.stdev(values) if len(values) > 1 else 0
                    style = dict(color=COLOURS[name], label=name if place == 0 else None)
                    axes.errorbar(place + shift, statistics.mean(values), yerr=spread, fmt='o', capsize=3, **style)
                    axes.plot([place + shift + 0.07] * len(values), values, '.', color=COLOURS[name], ms=3, alpha=0.6)
        axes.set_xticks(range(len(stock)), [config.split('_')[0].partition('-')[2].upper() for config in stock])
        axes.set_ylabel(f'{column}, %')
        axes.grid(axis='y', lw=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside upper center', ncols=2, frameon=False)
    return figure


@matplotlib.rc_context(STYLE)
def draw_curves(experiment: Experiment, config: str) -> Figure:
    """Draw what the anchors of a SAR config do over training, each seed a line, and the stock config beside it."""
    panels = {
        'curves': ('loss_anchor', 'loss_pull', 'anchor_conf', 'anchor_gate'),
        'validation': ('geometry/anchor_distance_relative', 'accuracy'),
    }
    runs = [run for run in done(experiment)[0] if run['config'] in (config, config.partition('sar_')[2])]
    names = [(part, name) for part, columns in panels.items() for name in columns]
    figure = Figure(figsize=(7.2, 3.8), layout='constrained')
    for axes, (part, name) in zip(figure.subplots(2, 3).flat, names):
        for run in runs:
            if name in run[part]:
                kind = 'SAR' if run['config'] == config else 'stock'
                axes.plot(run[part]['step'], run[part][name], color=COLOURS[kind], lw=1)
        axes.set_title(name.replace('geometry/', '') + (', validation' if part == 'validation' else ''), fontsize=8)
        axes.set_xlabel('iteration')
    handles = [Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=handles, loc='outside upper center', ncols=2, frameon=False)
    return figure


def draw_figures() -> None:
    """Write the figures of the page for which there are results."""
    folder = PAGE.with_name('figures')
    experiment = EXPERIMENTS['full-length']
    if done(experiment)[0]:
        draw_scores(experiment, ('accuracy', 'few')).savefig(folder / 'full_length.png', dpi=150)
        curves = draw_curves(experiment, 'sar_resnet8-la_1xb128-4k_fashion-mnist-lt-if100')
        curves.savefig(folder / 'training_curves.png', dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--list', action='store_true', help='show how much is done')
    parser.add_argument('--train', nargs='*', choices=[*EXPERIMENTS, []], metavar='NAME', help='default all')
    args = parser.parse_args()
    allow_bases()
    if args.list:
        for name, experiment in EXPERIMENTS.items():
            results, number = done(experiment)
            print(f'{name}: {len(results)} of {number}')
    elif args.train is not None:
        names = args.train or list(EXPERIMENTS)
        for wait in (False, True):  # first what no other process is at
            for name in names:
                experiment = EXPERIMENTS[name]
                train_missing(experiment.runs(), work_dir_of(experiment), results_of(experiment), wait=wait)
    else:
        for name, experiment in EXPERIMENTS.items():
            if f'<!-- {name} -->' in PAGE.read_text(encoding='utf-8'):
                write_page(PAGE, name, table_of(experiment))
        draw_figures()


if __name__ == '__main__':
    main()
