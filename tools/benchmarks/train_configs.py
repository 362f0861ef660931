"""Train configs over several seeds, go on where it was interrupted, and put the scores into a table.

    python tools/benchmarks/train_configs.py configs/long_tailed/fashion_mnist/*.py --seeds 0 1 2

adds one line per run to ``<work-dir>/results.jsonl``: the scores on the test set, a hash of the config, the versions.
The folder is ``work_dirs/long_tailed`` for configs in ``configs/long_tailed``, and so for every other task. Runs that
are there are not repeated, and an interrupted one is resumed from its last checkpoint. In the end, or at once with
``--table-only``, it prints a Markdown table with means and standard deviations; ``--page FILE --mark NAME`` writes it
between ``<!-- NAME -->`` and ``<!-- end -->`` of a page. ``--variant NAME`` keeps runs with other ``--cfg-options``
apart.
"""

import argparse
import hashlib
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Dict, List, Optional

import torch
from measure import made_with, write_page
from mmengine.config import Config
from mmengine.device import get_device

import sar_mm  # noqa: F401  (configs with a `_base_` in mmseg)
from sar_mm.engine.run_tool import run_tool

TOOLS = Path(__file__).resolve().parents[1]


def read_results(file: Path) -> List[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def run(config: Path, seed: int, args: argparse.Namespace, label: str) -> dict:
    """Train a config to the end, test it, and return the line of its results."""
    name = config.stem if args.variant is None else f'{config.stem}+{args.variant}'
    work_dir = args.work_dir / name / f'seed{seed}'
    options = ['--cfg-options', f'randomness.seed={seed}', *(args.cfg_options or [])]
    train = [str(TOOLS / 'train.py'), str(config), '--work-dir', str(work_dir), '--resume', *options]
    run_tool(train, work_dir / 'train.txt', f'{label}: train')
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    test = [str(TOOLS / 'test.py'), str(config), checkpoint, '--work-dir', str(work_dir / 'test'), *options]
    run_tool(test, work_dir / 'test.txt', f'{label}: test ')
    newest = max(work_dir.glob('test/*/*.json'), key=lambda path: path.stat().st_mtime)
    scores = json.loads(newest.read_text())
    scores = {name: value for name, value in scores.items() if isinstance(value, float) and 'time' not in name}
    versions = dict(torch=torch.__version__, device=made_with(torch.device(get_device()))['device'])
    result = dict(config=config.stem, variant=args.variant, seed=seed, scores=scores)
    return dict(result, digest=digest(config, args), **versions)


def digest(config: Path, args: argparse.Namespace) -> str:
    """Return a hash of what a config says, without the seed."""
    cfg = Config.fromfile(config).to_dict()
    return hashlib.sha256(json.dumps([cfg, args.cfg_options], default=str, sort_keys=True).encode()).hexdigest()[:12]


def find(results: List[dict], config: Path, seed: int, args: argparse.Namespace) -> bool:
    """Tell whether there is a result of this run; one of another version of the config ends the program."""
    for result in results:
        if (result['config'], result['variant'], result['seed']) == (config.stem, args.variant, seed):
            if result['digest'] != digest(config, args):
                sys.exit(
                    f'error: the results of {config.stem}, seed {seed}, are those of another version of the config or '
                    f'of other --cfg-options: remove them from {args.work_dir}, choose another --variant or --work-dir'
                )
            return True
    return False


def show(values: List[float]) -> str:
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def render(results: List[dict], columns: Optional[List[str]]) -> str:
    """Return the results as a Markdown table, a row per config and variant."""
    columns = columns or list(dict.fromkeys(name for run in results for name in run['scores']))
    rows: Dict[str, List[dict]] = {}
    for run in results:
        rows.setdefault(' + '.join(filter(None, (f'`{run["config"]}`', run['variant']))), []).append(run)
    lines = [f'| config | {" | ".join(columns)} | seeds |', '| --- |' + ' ---: |' * (len(columns) + 1)]
    for name, runs in rows.items():
        scores = [[run['scores'][column] for run in runs if column in run['scores']] for column in columns]
        cells = [show(values) if values else '' for values in scores]
        lines.append(f'| {name} | {" | ".join(cells)} | {len(runs)} |')
    return '\n'.join(lines)


def order(run: dict) -> tuple:
    """Sort by data set, the variants of a config below it, and a SAR config below its stock one.

    The data set is the last part of a config's name. Numbers in it count as such: 4 labels per class come before 25.
    """
    stock = re.sub('^sar_', '', run['config'])
    dataset = re.split(r'(\d+)', stock.rpartition('_')[2])
    dataset[1::2] = map(int, dataset[1::2])
    return dataset, stock, run['config'] != stock, run['variant'] or '', run['seed']


def task_folder(configs: List[Path]) -> Path:
    """Return the folder in work_dirs/ for configs of one task, which is their folder below configs/."""
    tasks = {task_of(config) for config in configs}
    if len(tasks) > 1 or None in tasks:
        found = ', '.join(sorted(task or 'none' for task in tasks))
        raise ValueError(
            f'the configs are not all of one task, a folder below configs/, but of {found}: give a --work-dir'
        )
    return Path('work_dirs', *tasks)


def task_of(config: Path) -> Optional[str]:
    folders = config.resolve().parent.parts
    if 'configs' not in folders:
        return None
    # The last one: the repository itself may lie in a folder of this name.
    last = len(folders) - folders[::-1].index('configs')
    return folders[last] if last < len(folders) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', type=Path, nargs='+', help='the rows of the table')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one run of every config per seed')
    parser.add_argument('--work-dir', type=Path, help='default work_dirs/<task>, the folder of the configs in configs/')
    parser.add_argument('--variant', help='name of what --cfg-options changes; other runs of the config stay')
    parser.add_argument('--cfg-options', nargs='+', help='settings that every run overrides')
    parser.add_argument('--columns', nargs='+', help='scores to show; default all')
    parser.add_argument('--table-only', action='store_true', help='train nothing, show what is there')
    parser.add_argument('--all-variants', action='store_true', help='show the runs of every --variant')
    parser.add_argument('--page', type=Path, help='Markdown file to write the table into')
    parser.add_argument('--mark', default='results', help='name of the place in the page')
    args = parser.parse_args()
    missing = [str(config) for config in args.configs if not config.is_file()]
    if missing:
        parser.error(f'there is no config {missing[0]}')
    if args.cfg_options and args.variant is None:
        parser.error('--cfg-options needs a --variant, to keep these runs apart from others')
    if args.work_dir is None:
        try:
            args.work_dir = task_folder(args.configs)
        except ValueError as error:
            parser.error(str(error))

    file = args.work_dir / 'results.jsonl'
    runs = [(seed, config) for seed in args.seeds for config in args.configs]
    for number, (seed, config) in enumerate(runs, 1):
        if args.table_only or find(read_results(file), config, seed, args):
            continue
        variant = f' + {args.variant}' if args.variant else ''
        result = run(config, seed, args, f'[{number}/{len(runs)}] {config.stem}{variant}, seed {seed}')
        with file.open('a') as out:
            out.write(json.dumps(result) + '\n')
    wanted = [config.stem for config in args.configs]
    results = [run for run in read_results(file) if run['config'] in wanted and run['seed'] in args.seeds]
    results = [run for run in results if args.all_variants or run['variant'] == args.variant]
    table = render(sorted(results, key=order), args.columns)
    print(table)
    if args.page:
        write_page(args.page, args.mark, table)


if __name__ == '__main__':
    main()
