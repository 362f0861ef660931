"""Train and test the quickstart models with and without semantic anchors, and compare them in a table.

`make demo` runs it with seed 0; with several, as in

    python tools/demo.py --seeds 0 1 2

the table shows mean and standard deviation.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='one run of every model per seed')
    parser.add_argument('--max-iters', type=int, help='shorten the training, to try the demo out')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='folder for logs and checkpoints')
    return parser.parse_args()


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

from prettytable import PrettyTable

from sar_mm.cli.run_tool import run_tool

ROOT = Path(__file__).resolve().parents[1]
TASKS = {
    'Classification': 'resnet18_1xb64-300iter_digits-lt',
    'Segmentation': 'fcn_unet_1xb16-400iter_digit-scenes-64x64',
}
# The digits by the number of training images or scenes: 0 is the most frequent, 9 the rarest.
GROUPS = {'many (0-3)': range(0, 4), 'medium (4-6)': range(4, 7), 'rare (7-9)': range(7, 10)}


def read_scores(work_dir: Path) -> Dict[str, float]:
    """Return the scores that tools/test.py left last, as the overall one and one per group of digits."""
    newest = max(work_dir.glob('test/*/*.json'), key=lambda path: path.stat().st_mtime)
    metrics = json.loads(newest.read_text())
    if 'accuracy/top1' in metrics:
        overall, of_class = metrics['accuracy/top1'], metrics['single-label/recall_classwise']
    else:
        overall, of_class = metrics['mIoU'], [metrics[f'IoU/{digit}'] for digit in range(10)]
    return dict(overall=overall, **{name: statistics.mean(of_class[k] for k in ks) for name, ks in GROUPS.items()})


def run(config: str, seed: int, work_root: Path, options: List[str], label: str) -> Dict[str, float]:
    """Train and test one config; return its scores and the seconds of training."""
    work_dir = work_root / config / f'seed{seed}'
    path = str(ROOT / 'configs' / 'quickstart' / f'{config}.py')
    options = ['--cfg-options', f'randomness.seed={seed}', *options]
    train = [str(ROOT / 'tools' / 'train.py'), path, '--work-dir', str(work_dir), *options]
    seconds = run_tool(train, work_dir / 'train.txt', f'{label} train')
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    test = [str(ROOT / 'tools' / 'test.py'), path, checkpoint, '--work-dir', str(work_dir / 'test'), *options]
    run_tool(test, work_dir / 'test.txt', f'{label} test ')
    return dict(read_scores(work_dir), seconds=seconds)


def show(values: List[float]) -> str:
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def show_table(results: Dict[str, List[Dict[str, float]]]) -> None:
    """Print a row per model and, under each pair, what semantic anchors add."""
    table = PrettyTable(['', 'overall', *GROUPS, 'training, s'])
    table.align, table.align[''] = 'r', 'l'
    for task, config in TASKS.items():
        measure = 'accuracy, %' if task == 'Classification' else 'mIoU, %'
        stock, sar = results[config], results[f'sar_{config}']
        scores = ['overall', *GROUPS]
        for name, runs in (('stock', stock), ('with anchors', sar)):
            columns = [show([run[score] for run in runs]) for score in scores]
            table.add_row([f'{task}, {measure}: {name}', *columns, show([run['seconds'] for run in runs])])
        gains = [statistics.mean(b[score] - a[score] for a, b in zip(stock, sar)) for score in scores]
        table.add_row(['    difference', *(f'{gain:+.1f}' for gain in gains), ''], divider=True)
    print(f'\n{table}')


def main(args: argparse.Namespace) -> None:
    options = [] if args.max_iters is None else [f'train_cfg.max_iters={args.max_iters}']

    start = time.perf_counter()
    print('Handwritten digits, long-tailed: 120 training images of digit 0 down to 2 of digit 9', flush=True)
    subprocess.run([sys.executable, str(ROOT / 'tools' / 'dataset_converters' / 'digits.py')], check=True)
    iters = args.max_iters or '300 (classification) and 400 (segmentation)'
    print(
        f'Short trainings, {iters} iterations: longer ones leave less of the difference, see docs/results.md',
        flush=True,
    )
    configs = [prefix + config for config in TASKS.values() for prefix in ('', 'sar_')]
    results = {config: [] for config in configs}
    for number, (seed, config) in enumerate([(seed, config) for seed in args.seeds for config in configs], 1):
        label = f'[{number}/{len(args.seeds) * len(configs)}] {config}, seed {seed}:'
        results[config].append(run(config, seed, args.work_dir, options, label))
    show_table(results)
    (args.work_dir / 'results.json').write_text(json.dumps(results, indent=2) + '\n')

    example = args.work_dir / f'sar_{TASKS["Segmentation"]}' / f'seed{args.seeds[0]}'
    checkpoint = (example / 'last_checkpoint').read_text().strip()
    print(f"""
Groups hold the accuracy or IoU of digits with many, some and few training images; the test sets are balanced.
All of it took {time.perf_counter() - start:.0f} s. Checkpoints and logs: {args.work_dir}/<config>/seed<n>/

What to run next:
  see predictions     {sys.executable} tools/test.py configs/quickstart/sar_{TASKS['Segmentation']}.py \\
                          {checkpoint} --show-dir {args.work_dir}/pictures
  more seeds          {sys.executable} tools/demo.py --seeds 0 1 2
  your own model      put SAR in front of the type of its head, see README.md""")


if __name__ == '__main__':
    main(ARGS)
