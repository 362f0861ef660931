"""What report.py does after it has read its command line."""

import argparse
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from examining import class_counts, examine, is_segmentation, read_config

from sar_mm import __version__
from sar_mm.analysis.report import Examined, Run, read_models
from sar_mm.analysis.report.figures import (
    anchor_figures,
    class_figure,
    confusion_figures,
    feature_figures,
    last_score_figures,
    loss_figures,
    prediction_figure,
    score_figures,
)
from sar_mm.analysis.report.page import ModelRow, Section, render, save_figures
from sar_mm.analysis.report.runs import check_task, classes_of
from sar_mm.analysis.report.scores import (
    geometry_rows,
    last_scores,
    numbers_of,
    of_class,
    score_rows,
    without_geometry,
)
from sar_mm.analysis.report.titles import differences, settings_of
from sar_mm.checks import UsageError
from sar_mm.cli.errors import report_errors

Models = Dict[str, List[Run]]


def make_report(args: argparse.Namespace) -> None:
    """Write the page, and the figures where they are asked for."""
    with report_errors():
        models = read_models(args.runs, args.names)
        check_task(models)
        classes = classes_of(models)
        predicted = runs_to_predict(models, args.predict)
        groups, kind = counts_of(models, args)
    examined: Dict[str, List[Examined]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, run in predicted:
            with report_errors():
                cfg = read_config(str(run.config), Path(folder), args.cfg_options)
            with report_errors(cfg):
                cfg.log_level = 'ERROR'  # what is said of the run is said by the tool
                print(f'{title}, seed {run.seed}: testing {run.checkpoint}', flush=True)
                found = examine(cfg, str(run.config), run.checkpoint, dict(groups), args, record=True)
                check_classes(classes or list(found.classes), found, run)
                classes = list(found.classes)
                examined.setdefault(title, []).append(found)
    with report_errors():
        sections = sections_of(models, examined, classes, (groups.get('class_counts'), kind), args)
        page = render(args.title or heading(models), model_rows(models), run_rows(models), sections, __version__)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page, encoding='utf-8')
        print(f'{args.out}: {sum(map(len, models.values()))} runs of {len(models)} models')
        if args.figures is not None:
            print(f'{args.figures}: {len(save_figures(sections, args.figures))} files')


def runs_to_predict(models: Models, which: str) -> List[Tuple[str, Run]]:
    """Return the runs whose checkpoints are run over the test set."""
    if which == 'none':
        return []
    with_checkpoint = {title: [run for run in runs if run.checkpoint] for title, runs in models.items()}
    missing = [title for title, runs in with_checkpoint.items() if not runs]
    if missing:
        raise UsageError(f'there is no whole checkpoint of {", ".join(missing)} yet: add --predict none')
    last = 1 if which == 'first' else None
    return [(title, run) for title, runs in with_checkpoint.items() for run in runs[:last]]


def counts_of(models: Models, args: argparse.Namespace) -> Tuple[Dict[str, Any], str]:
    """Return the options of the metric by groups with the counts of the classes, and what is counted.

    Training data that cannot be counted are no error unless --class-counts names a file: the counts are left out.
    """
    configs = [run.cfg for runs in models.values() for run in runs]
    try:
        return class_counts(configs, args.class_counts)
    except UsageError as error:
        if args.class_counts:
            raise
        print(f'the report has no counts of the classes: {error}')
        return {}, 'images'


def check_classes(classes: List[str], found: Examined, run: Run) -> None:
    if list(found.classes) != classes:
        raise UsageError(
            f'the runs have different classes, {classes} and {list(found.classes)} ({run.folder}): a report is of '
            'models of the same classes'
        )


def heading(models: Models) -> str:
    """Return the names of the models, or how many there are where the names would fill several lines."""
    names = ', '.join(models)
    return f'Report: {names}' if len(models) == 1 or len(names) <= 70 else f'Report of {len(models)} models'


def model_rows(models: Models) -> List[ModelRow]:
    """Return what the page's first table says of each model."""
    found = differences([(runs[0].name, settings_of(runs[0].cfg)) for runs in models.values()])
    return [
        ModelRow(title, runs[0].name, [f'{place} = {value}' for place, value in settings], len(runs))
        for (title, runs), settings in zip(models.items(), found)
    ]


def run_rows(models: Models) -> List[Dict[str, str]]:
    """Return what the page's second table says of each run."""
    rows = []
    for title, runs in models.items():
        for run in runs:
            trained = f'{run.done} {run.unit}s' if run.is_whole else f'{run.done} of {run.length} {run.unit}s so far'
            rows.append(
                dict(
                    model=title,
                    seed='none' if run.seed is None else str(run.seed),
                    trained=trained,
                    checkpoint=Path(run.checkpoint).name if run.checkpoint else 'none',
                    folder=str(run.folder),
                )
            )
    return rows


def sections_of(
    models: Models,
    examined: Dict[str, List[Examined]],
    classes: List[str],
    counted: Tuple[Optional[List[int]], str],
    args: argparse.Namespace,
) -> List[Section]:
    """Return the parts of the page, with all tables and figures."""
    counts, kind = counted
    logged = {title: [last_scores(run) for run in runs] for title, runs in models.items()}
    tested = numbers_of(examined)
    first_cfg = next(iter(models.values()))[0].cfg
    measure = 'IoU (%)' if is_segmentation(first_cfg) else 'accuracy (%)'
    what = 'pixels' if is_segmentation(first_cfg) else 'images'
    if examined:
        of_classes = {title: [run.of_class for run in runs] for title, runs in examined.items()}
    else:
        of_classes = {title: [of_class(run, classes) for run in runs] for title, runs in models.items()}
        of_classes = {title: [each for each in runs if each] for title, runs in of_classes.items()}
    counts = counts if counts is not None and len(counts) == len(classes) else None
    sections = [
        Section(
            'Scores',
            f'At the last validation of each run{places_of_validations(models)}.',
            rows=score_rows(without_geometry(logged)),
            figures=last_score_figures(models),
        ),
        Section(
            'Scores of the checkpoints',
            'On the test set, computed for this report.',
            rows=score_rows(without_geometry(tested)),
        ),
        Section('Curves of the scores', 'At every validation.', figures=score_figures(models)),
        Section(
            'Losses',
            'Thin lines are single runs, thick ones the mean of a model. With anchors, the total loss has more terms '
            'than without: compare the task loss.',
            figures=loss_figures(models),
        ),
        Section(
            'Gate and anchors',
            'Features are pulled in steps with an open gate: when the anchors are classified right, with confidence.',
            figures=anchor_figures(models),
        ),
        Section(
            'Classes by frequency' if counts else 'Classes',
            f'{measure[0].upper()}{measure[1:-4]} of each class, mean and standard deviation over the runs'
            + (', above its number of training ' + kind if counts else '')
            + '.',
            figures=class_figure(classes, counts, of_classes, measure, f'training {kind}'),
            wide=True,
        ),
    ]
    if not examined:
        return [*sections, Section('Geometry of the features', GEOMETRY, geometry_rows(logged))]
    sections += [
        Section(
            'Confusion matrices',
            f'All runs of a model together; {what} of each true class, in percent.',
            figures=confusion_figures(examined),
            wide=True,
        ),
        Section('Geometry of the features', GEOMETRY, geometry_rows(tested)),
        Section(
            't-SNE and cosines',
            'Of the first run of each model: features of the test set, equally many of each class, with the semantic '
            'anchors as stars; and the cosines of class means and anchors.',
            figures=feature_figures(examined, args.seed),
            wide=True,
        ),
    ]
    if len(examined) > 1:
        pair = most_telling_pair(models)
        score = 'share of right pixels' if is_segmentation(first_cfg) else 'probability of the true class'
        sections.append(
            Section(
                'Predictions',
                f'Test images on which the {score} differs most between {pair[0]} and {pair[1]} (first runs): first '
                f'those where {pair[1]} is better, then those where {pair[0]} is.',
                figures=prediction_figure(examined, pair, args.pictures),
                wide=True,
            )
        )
    return sections


def places_of_validations(models: Models) -> str:
    """Return at which iterations the last validations were, where they were at different ones."""
    places = sorted({max(run.log.val) for runs in models.values() for run in runs if run.log.val})
    return f', which are at different iterations ({", ".join(map(str, places))})' if len(places) > 1 else ''


GEOMETRY = 'Of the features in front of the classifier, on the test set; docs/long_tailed.md has the formulas.'


def most_telling_pair(models: Models) -> Tuple[str, str]:
    """Return the first model without anchors and the first one with anchors, or else the first two."""
    with_anchors = [title for title, runs in models.items() if has_anchors(runs[0])]
    without = [title for title in models if title not in with_anchors]
    return (without[0], with_anchors[0]) if with_anchors and without else tuple(list(models)[:2])


def has_anchors(run: Run) -> bool:
    return any(name.endswith('anchor_gate') for values in run.log.train.values() for name in values)
