"""Compare the feature spaces of two checkpoints, stock or SAR, for classification or segmentation.

    python tools/analysis_tools/compare_features.py STOCK_CONFIG STOCK_CHECKPOINT SAR_CONFIG SAR_CHECKPOINT

Runs each model over the test set once and writes into the folder ``--out``

    geometry.json    scatter, cosines, distance to the anchors and neural collapse of the features in front of the
                     classifier (what each is: sar_mm.analysis.geometry), and the scores by groups of classes
    cosines.png      cosines of the class means and the anchors
    frequency.png    accuracy or IoU of each class over its number of training images or pixels
    tsne.png         t-SNE of equally many features of every class, with the anchors

and prints the numbers of both models side by side. The groups are those of the first config with a GroupAccuracy or a
GroupIoUMetric, else of its defaults. The counts per class are, in this order, those of --class-counts, of that metric,
of the file of a ClassCountsHook, of the training images in classification, and those that
tools/dataset_converters/class_counts.py wrote into the data_root.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Dict, List


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for letter in 'ab':
        parser.add_argument(f'config_{letter}', help=f'path of the config of model {letter.upper()}')
        parser.add_argument(f'checkpoint_{letter}', help='path of its checkpoint')
    parser.add_argument('--names', default='stock,SAR', help='what to call the models, default stock,SAR')
    parser.add_argument('--layer', help='dotted name of the classifier layer, where it is not found')
    parser.add_argument('--samples-per-class', type=int, default=100, help='features in the t-SNE, default 100')
    parser.add_argument('--seed', type=int, default=0, help='seed of the sample and of the t-SNE, default 0')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/compare_features'), help='folder for the results')
    parser.add_argument('--class-counts', help='JSON file of tools/dataset_converters/class_counts.py')
    parser.add_argument('--cfg-options', nargs='+', help='override settings of both configs')
    args = parser.parse_args()
    args.names = [name.strip() for name in args.names.split(',')]
    if len(set(args.names) - {''}) != 2:
        parser.error(f'--names takes two different names with a comma between them, not {",".join(args.names)}')
    for option in ('samples_per_class', 'seed'):
        least = 1 if option == 'samples_per_class' else 0
        if getattr(args, option) < least:
            parser.error(f'--{option.replace("_", "-")} is to be at least {least}, not {getattr(args, option)}')
    return args


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

from examining import Examined, class_counts, examine, is_segmentation, read_config
from prettytable import PrettyTable

from sar_mm.analysis.plots import plot_accuracy_by_frequency, plot_cosines, plot_tsne
from sar_mm.checks import UsageError
from sar_mm.cli.checkpoints import check_checkpoint_path
from sar_mm.cli.errors import report_errors


def draw(models: Dict[str, Examined], counts: List[int], kind: str, measure: str, args: argparse.Namespace) -> None:
    classes = next(iter(models.values())).classes
    figures = dict(
        cosines=plot_cosines(classes, {name: (model.means, model.anchors) for name, model in models.items()}),
        frequency=plot_accuracy_by_frequency(
            classes,
            counts,
            {name: model.of_class for name, model in models.items()},
            measure=measure,
            unit=f'training {kind}',
        ),
        tsne=plot_tsne(
            {name: (model.features, model.labels, model.anchors) for name, model in models.items()}, classes, args.seed
        ),
    )
    for name, figure in figures.items():
        figure.savefig(args.out / f'{name}.png')


def write_numbers(models: Dict[str, Examined], path: Path) -> None:
    """Write the numbers as JSON, null for what is not a number."""
    content = {
        name: {key: value if math.isfinite(value) else None for key, value in model.numbers.items()}
        for name, model in models.items()
    }
    path.write_text(json.dumps(content, indent=2) + '\n')


def show(models: Dict[str, Examined]) -> None:
    table = PrettyTable(['', *models])
    table.align, table.align[''] = 'r', 'l'
    for key in dict.fromkeys(key for model in models.values() for key in model.numbers):
        values = [model.numbers.get(key) for model in models.values()]
        table.add_row([key, *('' if value is None else f'{value:.4g}' for value in values)])
    print(table)


def main(args: argparse.Namespace) -> None:
    given = ((args.config_a, args.checkpoint_a), (args.config_b, args.checkpoint_b))
    with report_errors():
        for _, checkpoint in given:
            check_checkpoint_path(checkpoint)
        configs = [
            read_config(config, args.out / name, args.cfg_options) for name, (config, _) in zip(args.names, given)
        ]
        groups, kind = class_counts(configs, args.class_counts)
    models = {}
    for name, cfg, (config, checkpoint) in zip(args.names, configs, given):
        with report_errors(cfg):
            models[name] = examine(cfg, config, checkpoint, groups, args)
    with report_errors():
        first, second = (model.classes for model in models.values())
        if first != second:
            raise UsageError(f'the models are tested on different classes, {first} and {second}')
    args.out.mkdir(parents=True, exist_ok=True)
    write_numbers(models, args.out / 'geometry.json')
    draw(models, groups['class_counts'], kind, 'IoU (%)' if is_segmentation(configs[0]) else 'accuracy (%)', args)
    show(models)
    print(f'geometry.json, cosines.png, frequency.png and tsne.png are in {args.out}')


if __name__ == '__main__':
    main(ARGS)
