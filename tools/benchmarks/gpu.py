"""All that needs a GPU, in one command: the tests that need one, and the benchmarks of time and memory.

    python tools/benchmarks/gpu.py --out work_dirs/gpu

runs, on one GPU in less than 8 minutes (--minutes):

tests          the tests marked `gpu`: Triton kernels against blocks and the CPU, capture in CUDA graphs, waits for the
               GPU, mixed precision in float16 and bfloat16; needs pytest and a clone of the repository
pull_op        pull_op.py
train_step     train_step.py for six models, each by itself
data_parallel  train_step.py in two processes, where there are two GPUs

Each part is a process of its own. One that fails or takes longer than its share of the time is ended, and the others
run all the same; what a part leaves of its time goes to those after it. The folder gets gpu.md, gpu.json, and what each
part printed. The exit code is 0 if all parts that ran passed, 1 if one did not, or pytest or the tests are missing.
``--short`` takes tiny sizes and two models, and runs on a CPU as well, where the tests are skipped: it shows that the
command works.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence
from xml.etree import ElementTree

from benchmark_arguments import positive
from stock_models import LARGE

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
TITLES = dict(
    tests='Tests',
    pull_op='The pull',
    train_step='A training step',
    data_parallel='A training step in two processes',
)
LINES = 15  # of what a part that failed printed last


class Part(NamedTuple):
    """A part of the run: its kind, the arguments of Python, its share of the time, or why it does not run."""

    kind: str
    name: str
    arguments: List[str]
    share: float
    left_out: str = ''  # no failure
    missing: str = ''  # a failure


def parse_arguments(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='folder to write the results into')
    parser.add_argument('--minutes', type=positive, default=8, help='longest time of all parts together; default 8')
    parser.add_argument('--short', action='store_true', help='tiny sizes, also on a CPU')
    args = parser.parse_args(arguments)
    import torch  # which --help does not wait for

    args.gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not args.gpus and not args.short:
        parser.error('PyTorch finds no GPU here: only --short runs on a CPU')
    if args.out.is_file():
        parser.error(f'argument --out: {args.out} is a file; name a folder')
    return args


# ----- The parts


def parts_of(folder: Path, gpus: int, is_short: bool) -> List[Part]:
    """Return the parts of a run, in their order."""
    device = ['--device', 'cuda' if gpus else 'cpu']
    steps = ['--size', '64', '64', '--batch-size', '2', '--rounds', '1'] if is_short else ['--rounds', '10']
    tiny = ['--shape', '1', '16', '16', '16', '--num-classes', '5', '--rounds', '1']
    pull = tiny if is_short else ['--channels-last']

    def script(name: str, part: str, *arguments: str) -> List[str]:
        return [str(FOLDER / f'{name}.py'), *arguments, *device, '--out', str(folder / f'{part}.json')]

    parts = [tests_part(folder), Part('pull_op', 'pull_op', script('pull_op', 'pull_op', *pull), 50)]
    for model in ['segformer-b0', 'resnet50'] if is_short else LARGE:
        name = f'train_step-{model}'
        parts.append(Part('train_step', name, script('train_step', name, '--models', model, *steps), 48))
    several = ['--models', 'segformer-b0', *([] if is_short else ['resnet50']), '--processes', '2', *steps]
    left_out = f'needs two GPUs, and PyTorch finds {gpus}' if gpus == 1 else ''
    arguments = script('train_step', 'data_parallel', *several)
    parts.append(Part('data_parallel', 'data_parallel', arguments, 0 if left_out else 90, left_out))
    return parts


def tests_part(folder: Path) -> Part:
    """Return the part of the tests: only the files with such tests, as others may need other packages."""
    files = sorted(path for path in (ROOT / 'tests').rglob('test_*.py') if 'mark.gpu' in path.read_text('utf-8'))
    missing = '' if files else 'the tests are not here: run this from a clone of the repository'
    if find_spec('pytest') is None:
        missing = 'pytest is not installed: pip install pytest'
    arguments = ['-m', 'pytest', '-q', '-m', 'gpu', '-rs', '-p', 'no:cacheprovider']
    arguments += [f'--rootdir={ROOT}', f'--junitxml={folder / "tests.xml"}', *map(str, files)]
    return Part('tests', 'tests', arguments, 0 if missing else 130, missing=missing)


def run_all(parts: Sequence[Part], folder: Path, seconds: float) -> List[dict]:
    """Run the parts one after the other and return what came of each."""
    results = []
    end = time.monotonic() + seconds
    for index, part in enumerate(parts):
        rest = sum(each.share for each in parts[index:])
        limit = max(end - time.monotonic(), 1) * part.share / rest if rest else 0
        print(f'{part.name} ...', file=sys.stderr, flush=True)
        results.append(run_part(part, folder, limit))
    return results


def run_part(part: Part, folder: Path, limit: float) -> dict:
    """Run a part for at most ``limit`` seconds."""
    result = dict(kind=part.kind, name=part.name, outcome='left out', reason=part.left_out, seconds=0.0)
    if part.missing:
        result.update(outcome='failed', reason=part.missing)
    if part.missing or part.left_out:
        return result
    paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    environment.pop('SAR_MM_PULL', None)  # the default is measured
    out, errors = (folder / f'{part.name}.{ending}' for ending in ('out', 'err'))
    start = time.monotonic()
    with out.open('w') as out_file, errors.open('w') as error_file:
        process = subprocess.Popen(
            [sys.executable, *part.arguments],
            cwd=folder,
            env=environment,
            stdout=out_file,
            stderr=error_file,
            start_new_session=True,  # a group: a part may have started processes
        )
        try:
            code: Optional[int] = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        except BaseException:  # Ctrl-C
            end_group(process)
            raise
        end_group(process)
    result.update(outcome='passed', seconds=round(time.monotonic() - start, 1), command=part.arguments)
    if code is None:
        result.update(outcome='failed', reason=f'it took longer than its {limit:.0f} s; --minutes gives all parts more')
    elif code:
        result.update(outcome='failed', reason=f'exit code {code}')
    return result


def end_group(process: subprocess.Popen) -> None:
    """End a process and those that it started."""
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ----- The report


def machine(gpus: int) -> Dict[str, str]:
    """Return what the head of the report names."""
    import torch
    from measure import made_with

    found = {name: str(value) for name, value in made_with(torch.device('cuda' if gpus else 'cpu')).items()}
    if gpus:
        found.update(GPUs=str(gpus), driver=driver_version())
        found.update({'CUDA': torch.version.cuda} if torch.version.cuda else {'HIP': str(torch.version.hip)})
    return dict(found, python=platform.python_version(), date=time.strftime('%Y-%m-%d'))


def driver_version() -> str:
    command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        found = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=30).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        found = []
    return found[0] if found else 'unknown'


def read_tests(file: Path) -> List[dict]:
    """Return the tests of a JUnit file: their file, name, outcome and, unless they passed, what was said."""
    if not file.is_file():
        return []
    tests = []
    for case in ElementTree.parse(file).iter('testcase'):
        found = {'failure': 'failed', 'error': 'failed', 'skipped': 'skipped'}
        told = next((child for child in case if child.tag in found), None)
        module = case.get('classname', '').split('.')[-1] or case.get('name')
        said = '' if told is None else (told.get('message') or '').split('\n')[0]
        outcome = 'passed' if told is None else found[told.tag]
        tests.append(dict(file=module, name=case.get('name'), outcome=outcome, said=said))
    return tests


def check_tests(result: dict, folder: Path, gpus: int) -> dict:
    """Return the result of the tests, which is no pass if all were skipped; that of another part as it is."""
    outcomes = {test['outcome'] for test in read_tests(folder / 'tests.xml')}
    if result['kind'] != 'tests' or result['outcome'] != 'passed' or 'passed' in outcomes:
        return result
    return dict(result, outcome='failed' if gpus else 'left out', reason='all tests were skipped')


def tests_text(tests: Sequence[dict]) -> str:
    """Return a table of the tests by file, and lists of those that failed or were skipped."""
    lines = ['| file | passed | failed | skipped |', '| --- | ---: | ---: | ---: |']
    for file in dict.fromkeys(test['file'] for test in tests):
        outcomes = [test['outcome'] for test in tests if test['file'] == file]
        numbers = (str(outcomes.count(outcome)) for outcome in ('passed', 'failed', 'skipped'))
        lines.append(f'| {file} | {" | ".join(numbers)} |')
    failed = [f'- `{test["name"]}`: {test["said"]}' for test in tests if test['outcome'] == 'failed']
    reasons = sorted({test['said'] for test in tests if test['outcome'] == 'skipped'})
    skipped = [f'Skipped: {"; ".join(reasons)}'] if reasons else []
    return '\n\n'.join(each for each in ('\n'.join(lines), '\n'.join(failed), *skipped) if each)


def join_tables(texts: Sequence[str]) -> str:
    """Return the outputs of a benchmark as one: the first, with the rows of the tables of the others."""
    lines = texts[0].strip().splitlines()
    for text in texts[1:]:
        lines += [line for line in text.splitlines() if line.startswith('|')][2:]
    return '\n'.join(lines)


def failure_text(result: dict, folder: Path) -> str:
    """Return that a part failed, why, and what it printed last."""
    texts = [folder / f'{result["name"]}.{ending}' for ending in ('out', 'err')]
    printed = [line for file in texts if file.is_file() for line in file.read_text(errors='replace').splitlines()]
    text = f'**{result["name"]} failed**: {result["reason"]}'
    return '\n'.join([f'{text}\n\n```', *printed[-LINES:], '```']) if printed else text


def section(kind: str, results: Sequence[dict], folder: Path) -> str:
    """Return the section of the parts of one kind."""
    texts = []
    passed = [result for result in results if result['outcome'] == 'passed']
    if kind == 'tests':
        tests = read_tests(folder / 'tests.xml')
        texts += [tests_text(tests)] if tests else []
    elif passed:
        texts.append(join_tables([(folder / f'{result["name"]}.out').read_text() for result in passed]))
    texts += [f'Left out: {result["reason"]}.' for result in results if result['outcome'] == 'left out']
    texts += [failure_text(result, folder) for result in results if result['outcome'] == 'failed']
    return '\n\n'.join([f'## {TITLES[kind]}', *texts])


def write_report(head: Dict[str, str], results: Sequence[dict], folder: Path) -> str:
    """Write gpu.md and gpu.json from the results and what lies in the folder; return the Markdown."""
    rest = ', '.join(f'{name} {value}' for name, value in head.items() if name != 'device')
    lines = ['| part | outcome | s |', '| --- | --- | ---: |']
    lines += [f'| {result["name"]} | {result["outcome"]} | {result["seconds"]:.0f} |' for result in results]
    kinds = dict.fromkeys(result['kind'] for result in results)
    texts = [f'# sar_mm on {head["device"]}', rest, '\n'.join(lines)]
    texts += [section(kind, [each for each in results if each['kind'] == kind], folder) for kind in kinds]
    markdown = '\n\n'.join(texts) + '\n'
    (folder / 'gpu.md').write_text(markdown, encoding='utf-8')
    for result in results:
        file = folder / f'{result["name"]}.json'
        if result['kind'] == 'tests':
            result['tests'] = read_tests(folder / 'tests.xml')
        elif result['outcome'] == 'passed':
            result['measured'] = json.loads(file.read_text())
    (folder / 'gpu.json').write_text(json.dumps(dict(head, parts=results), indent=2) + '\n', encoding='utf-8')
    return markdown


def main(args: argparse.Namespace) -> int:
    folder = args.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob('*'):
        if file.suffix in ('.json', '.out', '.err', '.xml'):  # of an earlier run
            file.unlink()
    results = run_all(parts_of(folder, args.gpus, args.short), folder, 60 * args.minutes)
    results = [check_tests(result, folder, args.gpus) for result in results]
    print(write_report(machine(args.gpus), results, folder), end='')
    return int(any(result['outcome'] == 'failed' for result in results))


if __name__ == '__main__':
    sys.exit(main(parse_arguments()))
