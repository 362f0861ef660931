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
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))

import matplotlib  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from measure import write_page  # noqa: E402
from train_configs import Run, order, read_results, render, train_missing  # noqa: E402

PAGE = Path(__file__).with_suffix('.md')
RESULTS = Path(__file__).with_suffix('')
FASHION = 'long_tailed/fashion_mnist/{}_1xb128-4k_fashion-mnist-lt100'
CIFAR = 'long_tailed/cifar10/{}_1xb128-40e_cifar10-lt100-folders'
CAMVID = 'long_tailed/camvid/{}_1xb8-3k_camvid-180x240'
NOISE = 'noisy_labels/fashion_mnist/{}_1xb128-4k_fashion-mnist-sym{}'
FEW = 'semi_supervised/fashion_mnist/{}_1xb16-1k_fashion-mnist-{}'
TEXT = 'configs/long_tailed/fashion_mnist/text_anchors.npy'
GROUPS = ('accuracy', 'many', 'medium', 'few')
ANCHORS, LOSS = 'model.head.anchor_head.', 'model.head.anchor_head.loss.'


class Experiment(NamedTuple):
    """Trainings of one table: every config with every variant and seed.

    Attributes:
        configs: Names of configs below configs/, without .py.
        seeds: Seeds.
        variants: Settings by the name of what they change; None: the config as it is.
        columns: Scores in the table.
        scores: Of which data: ``'scores'``, the test set, or ``'validation'`` where settings are chosen.
    """

    configs: Sequence[str]
    seeds: Sequence[int]
    columns: Sequence[str]
    variants: Dict[Optional[str], Sequence[str]] = {None: ()}
    scores: str = 'scores'

    def runs(self) -> List[Run]:
        return [
            Run(ROOT / 'configs' / f'{config}.py', seed, variant, tuple(options))
            for seed in self.seeds
            for variant, options in self.variants.items()
            for config in self.configs
        ]


def both(pattern: str, *names: str) -> List[str]:
    return [pattern.format(prefix + name) for name in names for prefix in ('', 'sar_')]


# What is tried beyond the paper's settings, on validation images; the rivals take the place of the anchors.
SEARCH = {
    'anchor-loss-only': [f'{LOSS}pull_weight=0'],
    'pull-1': [f'{LOSS}pull_weight=1'],
    'pull-10': [f'{LOSS}pull_weight=10'],
    'cosine': [f'{LOSS}distance=cosine'],
    'cosine-1': [f'{LOSS}distance=cosine', f'{LOSS}pull_weight=1'],
    'confidence-0.99': [f'{LOSS}confidence=0.99'],
    'confidence-none': [f'{LOSS}confidence=None'],
    'momentum-0.99': [f'{ANCHORS}momentum=0.99'],
    'gate-per-class': [f'{ANCHORS}gate_per_class=True'],
    'adjusted': [f'{LOSS}type=LogitAdjustedSARLoss'],
    'adjusted-none': [f'{LOSS}type=LogitAdjustedSARLoss', f'{LOSS}confidence=None'],
    'adjusted-none-cosine-1': [
        f'{LOSS}type=LogitAdjustedSARLoss',
        f'{LOSS}confidence=None',
        f'{LOSS}distance=cosine',
        f'{LOSS}pull_weight=1',
    ],
    'balanced-features': [f'{ANCHORS}type=BalancedFeaturesHead'],
}
RIVALS = {
    f'{name}-{weight}': [f'{ANCHORS}type={kind}', f'{ANCHORS}weight={weight}']
    for name, kind in (
        ('prototypes', 'PrototypeHead'),
        ('center-loss', 'CenterLossHead'),
        ('contrast', 'SupervisedContrastiveHead'),
    )
    for weight in (0.01, 0.1, 1)
}

EXPERIMENTS = {
    'full-length': Experiment(both(FASHION, 'resnet8-ce', 'resnet8-la', 'resnet8-ldam-drw'), (0, 1, 2), GROUPS),
    'search': Experiment([FASHION.format('sar_resnet8-la')], (0,), GROUPS, SEARCH, 'validation'),
    'rivals-search': Experiment([FASHION.format('sar_resnet8-la')], (0,), GROUPS, RIVALS, 'validation'),
    'imbalance': Experiment(
        both(FASHION, 'resnet8-la'),
        (0, 1, 2),
        GROUPS,
        {
            'step': ['train_dataloader.dataset.profile=step'],
            'reversed': ['train_dataloader.dataset.class_order=[9,8,7,6,5,4,3,2,1,0]'],
        },
    ),
    'language': Experiment(
        both(FASHION, 'resnet8-la')[1:],
        (0, 1, 2),
        GROUPS,
        {'text': [f'{ANCHORS}anchors.type=EmbeddingAnchors', f'{ANCHORS}anchors.path={TEXT}']},
    ),
    'fixed-classifier': Experiment(
        [FASHION.format('resnet8-ce')],
        (0, 1, 2),
        GROUPS,
        {'etf': ['model.head.type=ETFClsHead', 'model.head.loss.type=DotRegressionLoss']},
    ),
    'few-labels': Experiment(
        [
            FEW.format(head, number)
            for number in ('40', '100', '400', 'lt100-10pct')
            for head in ('resnet8-supervised', 'resnet8-fixmatch', 'sar_resnet8-fixmatch')
        ],
        (0, 1, 2),
        ('accuracy/top1', 'accuracy'),
    ),
    'noise': Experiment(
        [NOISE.format(head, rate) for rate in (20, 40) for head in ('resnet8', 'sar_resnet8')],
        (0, 1, 2),
        ('accuracy/top1',),
    ),
    'camvid': Experiment(
        both(CAMVID, 'fcn_unet-ce', 'fcn_unet-la'),
        (0, 1),
        ('mIoU', 'mIoU/common', 'mIoU/medium', 'mIoU/rare'),
    ),
    'cifar10': Experiment(
        both(CIFAR, 'resnet32-la', 'resnet32-ce', 'resnet32-ldam-drw'), (0,), ('accuracy', 'many', 'medium')
    ),
    'cifar10-seed1': Experiment(both(CIFAR, 'resnet32-la'), (1,), ('accuracy', 'many', 'medium')),
}


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


def table_of(experiment: Experiment) -> str:
    results, _ = done(experiment)
    shown = [dict(run, scores=last(run[experiment.scores])) for run in results]
    return render(sorted(shown, key=order), list(experiment.columns))


# ----- Figures

COLOURS = {'stock': '#4c78a8', 'SAR': '#e4772e'}
STYLE = {'font.size': 8, 'axes.spines.top': False, 'axes.spines.right': False}


@matplotlib.rc_context(STYLE)
def draw_bars(experiment: Experiment, columns: Sequence[str]) -> Figure:
    """Draw the scores of the stock configs and their SAR versions, means and standard deviations over the seeds."""
    results, _ = done(experiment)
    stock = [config.split('/')[-1] for config in experiment.configs if '/sar_' not in config]
    figure = Figure(figsize=(3.2 * len(columns), 2.6), layout='constrained')
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns):
        for shift, (name, prefix) in zip((-0.2, 0.2), (('stock', ''), ('SAR', 'sar_'))):
            for place, config in enumerate(stock):
                values = [run['scores'][column] for run in results if run['config'] == prefix + config]
                if values:
                    spread = statistics.stdev(values) if len(values) > 1 else 0
                    label = name if place == 0 else None
                    axes.bar(
                        place + shift, statistics.mean(values), 0.36, yerr=spread, color=COLOURS[name], label=label
                    )
        axes.set_xticks(range(len(stock)), [config.split('_')[0].partition('-')[2].upper() for config in stock])
        axes.set_ylabel(f'{column}, %')
        axes.set_ylim(bottom=50)
    axes.legend(frameon=False, loc='lower right')
    return figure


@matplotlib.rc_context(STYLE)
def draw_curves(experiment: Experiment, config: str) -> Figure:
    """Draw what the anchors of a SAR config do over training, each seed a line, the stock config beside it in grey."""
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
    return figure


def draw_figures() -> None:
    """Write the figures of the page for which there are results."""
    folder = PAGE.with_name('figures')
    experiment = EXPERIMENTS['full-length']
    if done(experiment)[0]:
        draw_bars(experiment, ('accuracy', 'few')).savefig(folder / 'full_length.png', dpi=150)
        curves = draw_curves(experiment, 'sar_resnet8-la_1xb128-4k_fashion-mnist-lt100')
        curves.savefig(folder / 'training_curves.png', dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--list', action='store_true', help='show how much is done')
    parser.add_argument('--train', nargs='*', choices=[*EXPERIMENTS, []], metavar='NAME', help='default all')
    args = parser.parse_args()
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
