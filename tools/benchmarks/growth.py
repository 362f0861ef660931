"""How the cost of semantic anchors grows with classes, channels, pixels and processes.

    python tools/benchmarks/growth.py --out growth.jsonl --figure growth.png

times two parts of a training step apart, forward and backward, without the optimizer: ``anchors``, a step of
SemanticAnchorHead with a single feature, which embeds, classifies and averages the anchors; and ``pull``,
sar_mm.ops.pull_loss of a feature map. One size varies at a time. Several processes have one thread and a feature map of
their own each, start every step together, and the slowest counts.

The figure has medians with quartiles on logarithmic axes, and for each part the slope of a line fitted through the
upper half of its points: 1 where the cost grows in proportion, 2 with the square. Points of more processes than cores
are hollow and take no part in it. At most 7 GB of memory are needed.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from benchmark_arguments import add_common_arguments, positive

PARTS = dict(anchors='#d9622b', pull='#4c78a8')


class Sizes(NamedTuple):
    """What a point is measured at."""

    classes: int = 150
    channels: int = 256
    pixels: int = 100_000  # a multiple of 8
    processes: int = 1


def points_of(is_short: bool, only: Optional[Sequence[int]] = None) -> Dict[str, List[Sizes]]:
    """Return the points of each axis; few channels where there are many pixels, as memory sets the limit."""
    if only:
        return dict(classes=[Sizes(*only, pixels=1000)])
    if is_short:
        base = Sizes(10, 8, 64)
        values = dict(classes=(10, 20), channels=(8, 16), pixels=(64, 128), processes=(1, 2))
        return {axis: [base._replace(**{axis: value}) for value in values[axis]] for axis in values}
    return dict(
        classes=[Sizes(classes=number) for number in (10, 30, 100, 300, 1000, 3000, 10_000, 21_841)],
        channels=[Sizes(channels=number) for number in (64, 128, 256, 512, 1024, 2048, 3072)],
        pixels=[Sizes(channels=64, pixels=10**power) for power in range(3, 8)],
        processes=[Sizes(processes=number) for number in (1, 2, 3, 4)],
    )


def parse_arguments(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--figure', type=Path, help='PNG file to draw the figure into')
    parser.add_argument('--short', action='store_true', help='two tiny sizes of each: whether it works, no figures')
    parser.add_argument('--only', type=positive, nargs=2, metavar=('K', 'C'), help='one number of classes and channels')
    add_common_arguments(parser, rounds=5, out='file of JSON lines')
    args = parser.parse_args(arguments)
    from measure import use_device  # imports PyTorch, which --help does not wait for

    args.device = use_device(parser, args)
    if args.figure and not args.figure.parent.is_dir():
        parser.error(f'argument --figure: there is no folder {args.figure.parent}')
    if args.page and not args.figure:
        parser.error('argument --page: the page shows the figure, so --page needs --figure FILE as well')
    return args


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_arguments()

import matplotlib
import numpy as np
import torch
import torch.distributed as dist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measure import IGNORED, Step, all_times, label_map, made_with, peak_memory, show, table
from torch import nn

from sar_mm.models import SemanticAnchorHead
from sar_mm.ops import pull_loss

# ----- What is timed


def anchor_step(sizes: Sizes, device: torch.device) -> Step:
    """Return a step of the anchors with a feature too small to matter."""
    head = SemanticAnchorHead(sizes.classes, sizes.channels).to(device)
    classifier = nn.Linear(sizes.channels, sizes.classes).to(device)
    feature = torch.ones(1, sizes.channels, device=device, requires_grad=True)
    target = torch.zeros(1, dtype=torch.long, device=device)
    trained = [*head.parameters(), *classifier.parameters(), feature]

    def step() -> None:
        for each in trained:
            each.grad = None
        losses = head.loss(feature, target, classifier)
        (losses['loss_anchor'] + losses['loss_pull']).backward()

    return step


def pull_step(sizes: Sizes, device: torch.device) -> Step:
    """Return a step of the pull."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (8, sizes.pixels // 8)
    feature = torch.randn(1, sizes.channels, *shape, generator=generator, device=device).requires_grad_()
    anchors = torch.randn(sizes.classes, sizes.channels, generator=generator, device=device)
    labels = label_map((1, *shape), sizes.classes).to(device)

    def step() -> None:
        feature.grad = None
        pull_loss(feature, labels, anchors, IGNORED).backward()

    return step


def steps_of(sizes: Sizes, device: torch.device) -> Dict[str, Step]:
    return dict(anchors=anchor_step(sizes, device), pull=pull_step(sizes, device))


def times_of(steps: Dict[str, Step], device: torch.device, rounds: int, before: Optional[Step] = None) -> dict:
    """Return the milliseconds of every part in every round."""
    return all_times(steps, device, rounds, warm_up=1, before=before)


def times_of_processes(sizes: Sizes, args: argparse.Namespace) -> Dict[str, List[float]]:
    """Return the milliseconds of the slowest process in every round."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run_rank, args=(sizes, args, folder), nprocs=sizes.processes)
        ranks = [json.loads(Path(folder, f'{rank}.json').read_text()) for rank in range(sizes.processes)]
    return {part: [max(each) for each in zip(*(rank[part] for rank in ranks))] for part in PARTS}


def run_rank(rank: int, sizes: Sizes, args: argparse.Namespace, folder: str) -> None:
    """Measure as one of several processes."""
    torch.set_num_threads(1)
    device = args.device
    if device.type == 'cuda':
        device = torch.device('cuda', rank)
        torch.cuda.set_device(rank)
    meeting_point = f'file://{folder}/meeting_point'
    dist.init_process_group('gloo', init_method=meeting_point, rank=rank, world_size=sizes.processes)
    times = times_of(steps_of(sizes, device), device, args.rounds, before=dist.barrier)
    Path(folder, f'{rank}.json').write_text(json.dumps(times))
    dist.destroy_process_group()


def measure(args: argparse.Namespace, head: dict) -> List[dict]:
    """Return a row for each part at each point, and write it to ``args.out`` as soon as it is there."""
    rows = []
    limit = torch.cuda.device_count() if args.device.type == 'cuda' else sys.maxsize
    for axis, points in points_of(args.short, args.only).items():
        for sizes in (each for each in points if each.processes <= limit):
            print(f'{axis} {getattr(sizes, axis)} ...', file=sys.stderr, flush=True)
            memory: Dict[str, float] = {}
            if axis == 'processes':
                times = times_of_processes(sizes, args)
            else:
                steps = steps_of(sizes, args.device)
                times = times_of(steps, args.device, args.rounds)
                memory = {'anchors': peak_memory(steps['anchors'], args.device) / 2**20}
            for part, ms in times.items():
                row = dict(axis=axis, x=getattr(sizes, axis), part=part, **sizes._asdict(), ms=ms)
                row.update(dict(mib=memory[part]) if part in memory else {})
                rows.append(dict(row, **summary(ms), cores=number_of_cores()))
                if args.out:
                    with args.out.open('a', encoding='utf-8') as file:
                        file.write(json.dumps(dict(rows[-1], made_with=head)) + '\n')
    return rows


def summary(ms: Sequence[float]) -> dict:
    """Return the median and the quartiles."""
    low, median, high = statistics.quantiles(ms, n=4, method='inclusive') if len(ms) > 1 else ms * 3
    return dict(median=median, quartiles=[low, high])


def number_of_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


# ----- The report


def select(rows: Sequence[dict], axis: str, part: str) -> List[dict]:
    return [row for row in rows if (row['axis'], row['part']) == (axis, part)]


def fitted(rows: Sequence[dict]) -> List[dict]:
    """Return the upper half of the points of a part, without those of more processes than cores."""
    rows = [row for row in rows if row['axis'] != 'processes' or row['processes'] <= row['cores']]
    return list(rows[min(len(rows) // 2, max(len(rows) - 2, 0)) :])


def slope(rows: Sequence[dict]) -> Optional[float]:
    """Return the exponent of the growth over these points; None of a single one."""
    if len(rows) < 2:
        return None
    x, y = (np.log([row[name] for row in rows]) for name in ('x', 'median'))
    return float(np.polyfit(x, y, 1)[0])


@matplotlib.rc_context({'font.size': 8, 'axes.spines.top': False, 'axes.spines.right': False})
def draw(rows: Sequence[dict], path: Path) -> None:
    """Write the figure, a panel for each axis."""
    axes = list(dict.fromkeys(row['axis'] for row in rows))
    figure = Figure(figsize=(3 * len(axes), 2.8), layout='constrained')
    for panel, axis in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes):
        for part, color in PARTS.items():
            draw_part(panel, select(rows, axis, part), part, color)
        fixed = ', '.join(f'{name} {value:,}' for name, value in others(rows, axis).items())
        panel.set(xscale='log', yscale='log', xlabel=axis, ylabel='ms')
        panel.set_title(fixed, fontsize=7)
        if axis == 'processes':
            numbers = sorted({row['x'] for row in rows if row['axis'] == axis})
            panel.set_xticks(numbers, [str(number) for number in numbers])
            panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=150)


def draw_part(panel: Axes, rows: Sequence[dict], part: str, color: str) -> None:
    exponent = slope(fitted(rows))
    label = part if exponent is None else f'{part}, slope {exponent:.2f}'
    for row in rows:
        low, high = row['quartiles']
        is_hollow = row['axis'] == 'processes' and row['processes'] > row['cores']
        panel.errorbar(
            row['x'], row['median'], [[row['median'] - low], [high - row['median']]], fmt='o', ms=4, lw=1, color=color,
            mfc='white' if is_hollow else color,
        )  # fmt: skip
    panel.plot([row['x'] for row in rows], [row['median'] for row in rows], color=color, lw=0.8, alpha=0.5)
    if exponent is None:
        panel.plot([], [], color=color, label=label)
        return
    x, y = (np.array([row[name] for row in fitted(rows)], dtype=float) for name in ('x', 'median'))
    middle = np.exp(np.log(x).mean()), np.exp(np.log(y).mean())
    panel.plot(x, middle[1] * (x / middle[0]) ** exponent, color=color, lw=1.6, ls='--', label=label)


def others(rows: Sequence[dict], axis: str) -> Dict[str, int]:
    """Return the sizes that are the same along an axis."""
    first = next(row for row in rows if row['axis'] == axis)
    names = [name for name in Sizes._fields if name not in (axis, 'processes')]
    return {name: first[name] for name in names}


def render(rows: Sequence[dict]) -> str:
    """Return a Markdown table of the first and the last point of every axis, and the slopes."""
    columns = ['from, to', *(f'{part} {name}' for part in PARTS for name in ('ms, first', 'ms, last', 'slope'))]
    columns += ['anchors MiB, first', 'anchors MiB, last']
    lines = []
    for axis in dict.fromkeys(row['axis'] for row in rows):
        line: List[str] = []
        for part in PARTS:
            of_part = select(rows, axis, part)
            exponent = slope(fitted(of_part))
            line += [f'{row["median"]:.4g}' for row in (of_part[0], of_part[-1])]
            line += ['' if exponent is None else f'{exponent:.2f}']
        of_anchors = select(rows, axis, 'anchors')
        line += [f'{row["mib"]:.4g}' if 'mib' in row else '' for row in (of_anchors[0], of_anchors[-1])]
        lines.append([f'{of_part[0]["x"]:,} to {of_part[-1]["x"]:,} {axis}', *line])
    return table(columns, lines)


def main(args: argparse.Namespace) -> None:
    head = made_with(args.device)
    if args.out:
        args.out.write_text('', encoding='utf-8')
    rows = measure(args, head)
    markdown = render(rows)
    if args.figure:
        draw(rows, args.figure)
        if args.page:
            link = os.path.relpath(args.figure.resolve(), args.page.resolve().parent)
            sizes = 'classes, channels, pixels and processes'
            markdown += f'\n\n![Milliseconds of the anchors and of the pull over {sizes}]({link})'
    show(args, head, markdown)


if __name__ == '__main__':
    main(ARGS)
