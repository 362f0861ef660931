"""Run the tests in tests/faults with the full number of kills, and write docs/reliability.md from what they record.

python docs/reliability.py              # what `make test-faults` does, 20 minutes on 2 CPU cores
python docs/reliability.py --kills 3    # to try it out
"""

import argparse
import ast
import os
import platform
import re
import sys
from collections import Counter
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import pytest

PAGE = Path(__file__).with_suffix('.md')
ROOT = PAGE.parents[1]
WRONG_CONFIGS = 'test_wrong_configs.py'
BAD_INPUTS = ('test_bad_data.py', 'test_bad_numbers.py')
_ERROR = re.compile(r'[A-Za-z]*(?:[Ee]rror|Exception):')
LONGEST = 300  # characters of an outcome
PACKAGES = {
    'PyTorch': ['torch'],
    'mmengine': ['onedl-mmengine', 'mmengine'],
    'mmcv': ['onedl-mmcv', 'mmcv'],
    'MMSegmentation': ['onedl-mmsegmentation', 'mmsegmentation'],
    'MMPretrain': ['onedl-mmpretrain', 'mmpretrain'],
}
INTRODUCTION = """# Reliability

What happens to a run that is killed, to a config with a mistake in it, and to bad data. `make test-faults` tests all
of it and writes this page; an outcome that is not the right one fails the tests, too.

## What is promised

- **A run that is killed and resumed ends as if it had not been**, on the CPU bit for bit: weights, anchors, gate,
  optimizer, schedules, averaged weights, best score and log, whatever it was doing when it was killed. Random numbers
  depend on the seed and the place in the run, so that a resumed run sees the same data, augmented in the same way.
- **No half-written checkpoint is ever resumed.** A checkpoint gets its name once it is wholly on the disk. Where the
  newest is damaged all the same, `--resume` warns and takes the one before. Where all are, it stops rather than starts
  anew.
- **What cannot work is refused before training**: a folder that cannot be written to, a disk without room for a
  checkpoint, and mistakes in a config.

## How the tools report errors

- **What this package checks** is printed as one sentence, with the argument, its value, what is valid and where in the
  config it is; the exit code is 2. `sar_mm.checks.UsageError`, a `ValueError`, is what your own parts may raise for it.
- **Any other error** keeps its traceback, which is written to the log file, too; the exit code is 1. A line of help
  below it says where a misspelt type or option is in the config and what the nearest valid name is, where an option at
  the wrong level belongs (`anchor_head=dict(pull_weight=0.5)`: set `anchor_head.loss.pull_weight`), or that a module
  cannot be imported and its folder has to be on `PYTHONPATH`.
- **What mmengine ignores** is no error: there is a warning of a setting that looks misspelt (`custom_hook`), and of one
  that `--cfg-options` gives and that neither the config nor a runner has.

## How to resume

The same command again, with `--resume`. Without a checkpoint it starts from scratch, so jobs can always have it:

```bash
python tools/train.py my_config.py --resume
MAX_RESTARTS=3 tools/dist_train.sh my_config.py 8 --resume    # goes on by itself after a process has died
```

How much is lost depends on `default_hooks.checkpoint.interval`. With `max_keep_ckpts`, keep at least two: if the newest
is damaged, the one before it is taken.

## What is not covered

- On GPUs a resumed run draws the same data and random numbers, but kernels that are not deterministic make it differ as
  any two runs do; `randomness = dict(seed=0, deterministic=True)` asks for those that are.
- A run resumed with another number of processes, another batch size or another config goes on, but as another run.
- `EpochBasedTrainLoop` goes on at the start of an epoch, so let it save by epochs (`by_epoch=True`).
- With `accumulative_counts`, the gradients of a step that is not done yet are in no checkpoint, as mmengine warns: save
  where a step ends. What hooks keep to themselves, such as the patience of `EarlyStoppingHook`, starts anew.
- Random numbers that a transform or a sampler keeps in a generator of its own, iterable data sets, and data loaders of
  a class derived from `DataLoader` are not seeded anew.
- A checkpoint that a hook of your own saves (`runner.save_checkpoint`, on the main process alone if you like) is whole,
  too, but has running statistics that the other processes do not share. Only where `CheckpointHook` saves are they
  shared, by `ShareBuffersHook`, which the runner registers where there are several processes.
- A file of weights alone, without `message_hub` and the iteration, is not resumed but named in an error: start from it
  with `load_from`.
- In an object store (`default_hooks.checkpoint.out_dir='s3://...'`), the checkpoint that `last_checkpoint` in the work
  folder names is resumed; damaged ones are not looked for.
- The toolboxes' own `tools/train.py` give all this with `runner_type = 'ResumableRunner'` in the config, and a part of
  it with the hooks below.

## Other runners

mmengine's `Runner` and `FlexibleRunner` take these hooks, whose seeding and writing `ResumableRunner` has by itself:

```python
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
custom_hooks = [dict(type='SeedByPlaceHook'), dict(type='ShareBuffersHook')]
```

A resumed run then ends as the whole one, too, but for a validation that was due at the checkpoint: it is left out.
Without a seed in the config, samplers have another one after a resume. `--resume` takes the checkpoint that
`last_checkpoint` names and does not look whether it is whole. `AtomicCheckpointHook` is for checkpoints that are files:
with DeepSpeed, which writes folders, take `CheckpointHook`.

## Where it differs from mmengine's Runner

mmengine's own tests of its runner and hooks pass with it, but for these differences:

- `build_dataloader` makes a plain `DataLoader` one of its own, `SeededLoader`, also where it is given one that is built
  already. Its data set, sampler and options are those of the config.
- The order that a sampler draws from PyTorch's, numpy's or Python's global random state depends on the seed and the
  pass over the data, and is alike in all processes; so does what samples draw, differently in each.
- A resumed iteration-based training passes over the indices of what it has had, without loading it, whatever the
  sampler: `train_loop.dataloader_iterator` is an `EndlessBatches`, where mmengine's own would skip.
- `max_keep_ckpts=1` keeps two checkpoints.
"""


class Row(NamedTuple):
    """A test, as a row of the table of its module."""

    module: str
    name: str
    status: str  # 'passed', 'failed' or 'skipped'
    properties: Dict[str, object]
    reason: str  # why it failed or was skipped


class Recorder:
    """A pytest plugin that keeps a row for every test."""

    def __init__(self) -> None:
        self.rows: Dict[str, Row] = {}

    def pytest_runtest_logreport(self, report) -> None:
        if report.when != 'call' and report.passed:
            return
        path, _, name = report.nodeid.partition('::')
        reason = ''
        if report.failed:
            crash = getattr(report.longrepr, 'reprcrash', None)
            reason = crash.message if crash else str(report.longrepr)
        elif report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2]
        properties = dict(report.user_properties)
        self.rows[report.nodeid] = Row(Path(path).name, name, report.outcome, properties, reason)


def cell(value: object) -> str:
    """Return a text as it may stand in a table: one line, of limited length, without folders for temporary files."""
    text = re.sub(r'/(?:tmp|var/tmp|private/\S*?/T)/(?:[^/\s\'"`:,;]+/)+', '', str(value))
    text = ' '.join(text.replace(f'{ROOT}/', '').split())
    if len(text) > LONGEST:
        text = text[: LONGEST - 4].rsplit(' ', 1)[0] + ' ...'
    return text.replace('|', '\\|').replace('<', '&lt;')


def heading(module: str) -> str:
    """Return the first line of a test module's docstring."""
    path = ROOT / 'tests' / 'faults' / module
    text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) if path.exists() else None
    return text.splitlines()[0].rstrip('.:') if text else module


def table(rows: List[Row]) -> str:
    """Return the table of one module, in the order of its tests."""
    lines = ['| fault | outcome | |', '| --- | --- | --- |']
    for row in rows:
        if row.status == 'skipped' and 'fault' not in row.properties:
            continue  # counted only
        outcome = row.properties.get('outcome') if row.status == 'passed' else row.reason
        cells = (row.properties.get('fault') or row.name, outcome or '', row.status)
        lines.append('| ' + ' | '.join(map(cell, cells)) + ' |')
    return '\n'.join(lines)


def is_refused(row: Row) -> bool:
    """Tell whether the outcome is an error rather than a training that goes on."""
    return row.status == 'passed' and bool(_ERROR.match(str(row.properties.get('outcome', ''))))


def summary(modules: Dict[str, List[Row]]) -> str:
    """Return the counts at the top."""
    rows = [row for each in modules.values() for row in each if row.status != 'skipped']
    kills = [(row.properties.get('kills', 0), row.status == 'passed') for row in rows]
    tried, survived = sum(count for count, _ in kills), sum(count for count, passed in kills if passed)
    configs = [row.status == 'passed' for row in rows if row.module == WRONG_CONFIGS]
    inputs = [row for row in rows if row.module in BAD_INPUTS]
    refused, passed = sum(map(is_refused, inputs)), sum(row.status == 'passed' for row in inputs)
    lines = [
        f'- kills survived: {survived} of {tried};',
        f'- wrong configs refused before the first step, with a message that names the remedy: {sum(configs)} of '
        f'{len(configs)};',
        f'- other bad inputs: {len(inputs)} tried, {refused} refused with the error that is quoted below, and '
        f'{passed - refused} trained on as it says there.\n',
        '| | tried | as it should be | skipped |',
        '| --- | ---: | ---: | ---: |',
    ]
    for module, each in modules.items():
        counts = Counter(row.status for row in each)
        tried = len(each) - counts['skipped']
        lines.append(f'| {cell(heading(module))} | {tried} | {counts["passed"]} | {counts["skipped"]} |')
    return '\n'.join(lines)


def installed(names: List[str]) -> Optional[str]:
    """Return the name and version of the first of these distributions that is installed."""
    for name in names:
        try:
            return f'{name} {version(name)}'
        except PackageNotFoundError:
            continue
    return None


def render(rows: List[Row], day: date) -> str:
    """Return the page."""
    modules: Dict[str, List[Row]] = {}
    for row in rows:
        if row.status == 'passed' and 'fault' not in row.properties:
            continue  # a test of the tests
        modules.setdefault(row.module, []).append(row)
    modules = dict(sorted(modules.items()))
    versions = ', '.join(filter(None, map(installed, PACKAGES.values())))
    tried = f'`make test-faults` on {day.isoformat()}, on CPU, with Python {platform.python_version()}, {versions}.'
    parts = [INTRODUCTION, '## What was tried\n', f'{tried}\n', summary(modules) + '\n']
    for module, each in modules.items():
        parts += [f'### {heading(module)}\n', f'`tests/faults/{module}`\n', table(each) + '\n']
    return '\n'.join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=20, help='how often each training is killed')
    parser.add_argument('--out', type=Path, default=PAGE)
    parser.add_argument('pytest_args', nargs='*', help='further arguments of pytest, behind --')
    args = parser.parse_args()
    os.environ['SAR_KILLS'] = str(args.kills)
    recorder = Recorder()
    faults = ROOT / 'tests' / 'faults'
    code = pytest.main(['-m', '', '-rs', f'--rootdir={ROOT}', str(faults), *args.pytest_args], plugins=[recorder])
    args.out.write_text(render(list(recorder.rows.values()), date.today()), encoding='utf-8')
    return int(code)


if __name__ == '__main__':
    sys.exit(main())
