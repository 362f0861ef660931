"""Train configs over several seeds, go on where it was interrupted, and put the scores into a table.

    python tools/benchmarks/train_configs.py configs/long_tailed/fashion_mnist/*.py --seeds 0 1 2

adds one line per run to ``<work-dir>/results.jsonl``: the scores on the test set, those of every validation, the
logged losses over training, a hash of the config, the versions. The folder is ``work_dirs/long_tailed`` for configs in
``configs/long_tailed``, and so for every other task. Runs that are there are not repeated, and an interrupted one is
resumed from its last checkpoint. Several processes may share a folder: a run is locked while it is trained, and the
others take the next one. In the end, or at once with ``--table-only``, it prints a Markdown table with means and
standard deviations; ``--page FILE --mark NAME`` writes it between ``<!-- NAME -->`` and ``<!-- end -->`` of a page.
``--variant NAME`` keeps runs with other ``--cfg-options`` apart.
"""

import argparse
import fcntl
import hashlib
import json
import math
import re
import statistics
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple


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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', type=Path, nargs='+', help='the rows of the table')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='one run of every config per seed')
    parser.add_argument('--work-dir', type=Path, help='default work_dirs/<task>, the folder of the configs in configs/')
    parser.add_argument('--results', type=Path, help='JSON lines of the results; default <work-dir>/results.jsonl')
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
    return args


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

import torch
from measure import made_with, write_page
from mmengine.config import Config
from mmengine.device import get_device

from sar_mm import allow_bases
from sar_mm.cli.run_tool import run_tool

TOOLS = Path(__file__).resolve().parents[1]


class Run(NamedTuple):
    """A training: a config, what is changed in it, and a seed."""

    config: Path
    seed: int
    variant: Optional[str] = None
    options: Tuple[str, ...] = ()

    @property
    def key(self) -> tuple:
        return self.config.stem, self.variant, self.seed

    @property
    def name(self) -> str:
        return f'{self.config.stem}+{self.variant}' if self.variant else self.config.stem

    def digest(self) -> str:
        """Return a hash of what the config says, without the seed."""
        said = [Config.fromfile(self.config).to_dict(), list(self.options) or None]
        return hashlib.sha256(json.dumps(said, default=str, sort_keys=True).encode()).hexdigest()[:12]


# ----- Results


def read_results(file: Path) -> Dict[tuple, dict]:
    """Return the results by config, variant and seed: a run that is there twice counts once."""
    results = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {(each['config'], each['variant'], each['seed']): each for each in reversed(results)}


def add_result(file: Path, result: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open('a') as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        out.write(json.dumps(result) + '\n')


def is_there(file: Path, run: Run) -> bool:
    """Tell whether there is a result of this run; one of another version of the config ends the program."""
    result = read_results(file).get(run.key)
    if result is not None and result['digest'] != run.digest():
        sys.exit(
            f'error: the results of {run.name}, seed {run.seed}, are those of another version of the config or '
            f'of other --cfg-options: remove them from {file}, choose another --variant or --work-dir'
        )
    return result is not None


def log_files(work_dir: Path) -> List[Path]:
    return sorted(work_dir.glob('*/vis_data/scalars.json'))


def read_log(work_dir: Path) -> Tuple[dict, dict]:
    """Return the scores of validations, and the logged losses and the like: lists, with the steps they are of.

    A resumed training has a log for each of its parts, of which the later one counts where two overlap.
    """
    validations, lines = {}, {}
    for file in log_files(work_dir):
        for line in map(json.loads, file.read_text().splitlines()):
            (lines if 'lr' in line else validations)[line['step']] = line
    # mmseg puts the head before the name: decode.loss_ce.
    return as_lists(validations, '(?!step|time|data_time)'), as_lists(lines, r'(\w+\.)?(loss|anchor_)')


def as_lists(lines: Dict[int, dict], pattern: str) -> Dict[str, list]:
    """Turn log lines by step into lists by name, of the names that match and are in the last line."""
    steps = sorted(lines)
    names = [name for name in (lines[steps[-1]] if steps else ()) if re.match(pattern, name)]
    return dict(step=steps, **{name: [rounded(lines[step].get(name)) for step in steps] for name in names})


def rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None or not math.isfinite(value) else float(f'{value:.4g}')


# ----- Training


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[Optional[int]]:
    """Lock the folder of a run and give the lock file's descriptor, or None where another process has it.

    The lock is held until this process and those that inherit the descriptor have ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file.fileno()


def train_missing(runs: Sequence[Run], root: Path, file: Path, wait: bool = True) -> None:
    """Train what has no result: first what no other process trains, then, with ``wait``, what another one gave up."""
    missing = [(f'[{number}/{len(runs)}]', run) for number, run in enumerate(runs, 1) if not is_there(file, run)]
    elsewhere = []
    for label, run in missing:
        if not train_once(run, root, file, label, wait=False):
            elsewhere.append((label, run))
    for label, run in elsewhere if wait else ():
        train_once(run, root, file, label, wait=True)


def train_once(run: Run, root: Path, file: Path, label: str, wait: bool) -> bool:
    """Train and test a config unless its result is there; return False where another process is at it."""
    work_dir = root / run.name / f'seed{run.seed}'
    with locked(work_dir, wait) as lock:
        if lock is not None and not is_there(file, run):
            name = f'{run.config.stem} + {run.variant}' if run.variant else run.config.stem
            add_result(file, train_and_test(run, work_dir, f'{label} {name}, seed {run.seed}', lock))
    return lock is not None


def train_and_test(run: Run, work_dir: Path, label: str, lock: int) -> dict:
    """Train a config to the end, test it, and return the line of its results; the tools hold the lock, too."""
    options = ['--cfg-options', f'randomness.seed={run.seed}', *run.options]
    train = [str(TOOLS / 'train.py'), str(run.config), '--work-dir', str(work_dir), '--resume', *options]
    run_tool(train, work_dir / 'train.txt', f'{label}: train', [lock])
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    test = [str(TOOLS / 'test.py'), str(run.config), checkpoint, '--work-dir', str(work_dir / 'test'), *options]
    run_tool(test, work_dir / 'test.txt', f'{label}: test ', [lock])
    newest = max(work_dir.glob('test/*/*.json'), key=lambda path: path.stat().st_mtime)
    scores = json.loads(newest.read_text())
    scores = {name: value for name, value in scores.items() if isinstance(value, float) and 'time' not in name}
    validation, curves = read_log(work_dir)
    versions = dict(torch=torch.__version__, device=made_with(torch.device(get_device()))['device'])
    result = dict(config=run.config.stem, variant=run.variant, seed=run.seed, scores=scores, validation=validation)
    return dict(result, curves=curves, digest=run.digest(), **versions)


# ----- Tables


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


def main(args: argparse.Namespace) -> None:
    allow_bases()
    file = args.results or args.work_dir / 'results.jsonl'
    options = tuple(args.cfg_options or ())
    runs = [Run(config, seed, args.variant, options) for seed in args.seeds for config in args.configs]
    if not args.table_only:
        train_missing(runs, args.work_dir, file)
    wanted = [config.stem for config in args.configs]
    results = [run for run in read_results(file).values() if run['config'] in wanted and run['seed'] in args.seeds]
    results = [run for run in results if args.all_variants or run['variant'] == args.variant]
    table = render(sorted(results, key=order), args.columns)
    print(table)
    if args.page:
        write_page(args.page, args.mark, table)


if __name__ == '__main__':
    main(ARGS)
