"""tools/benchmarks/long_tailed.py, on the quickstart's classification config."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmpretrain.models')

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'benchmarks' / 'long_tailed.py'
CONFIG = ROOT / 'configs' / 'quickstart' / 'sar_resnet18_1xb64-300iter_digits-lt.py'


def run(*arguments, folder):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with the digits and the results of one seed."""
    folder = tmp_path_factory.mktemp('bench')
    digits = ROOT / 'tools' / 'dataset_converters' / 'digits.py'
    subprocess.run([sys.executable, str(digits)], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


OPTIONS = ['--variant', 'short', '--cfg-options', 'train_cfg.max_iters=2']


def test_long_tailed__trains_once_and_shows_a_table(folder):
    page = folder / 'page.md'
    page.write_text('before\n<!-- here -->\nold\n<!-- end -->\nafter\n')
    arguments = [CONFIG, '--seeds', 0, 1, *OPTIONS]
    first = run(*arguments, folder=folder)
    assert first.returncode == 0, first.stderr
    file = folder / 'work_dirs' / 'long_tailed' / 'results.jsonl'
    lines = file.read_text()
    results = [json.loads(line) for line in lines.splitlines()]
    assert [(run['config'], run['variant']) for run in results] == [(CONFIG.stem, 'short')] * 2
    assert [run['seed'] for run in results] == [0, 1]
    scores = [run['scores']['accuracy/top1'] for run in results]
    mean, spread = sum(scores) / 2, abs(scores[0] - scores[1]) / 2**0.5
    assert f'`{CONFIG.stem}` + short | {mean:.1f} ± {spread:.1f} |' in first.stdout

    again = run(*arguments, '--columns', 'accuracy/top1', '--page', page, '--mark', 'here', folder=folder)
    assert again.returncode == 0 and 'train' not in again.stdout
    assert file.read_text() == lines
    text = page.read_text()
    assert text.startswith('before\n<!-- here -->\n| config | accuracy/top1 | seeds |')
    assert text.endswith('<!-- end -->\nafter\n')
    assert 'old' not in text


def test_long_tailed__goes_on_where_it_was_interrupted(folder):
    """Once within the training, once between the last checkpoint and the test."""
    scores = []
    for stop in (2, 4):
        work_dir = folder / f'stop{stop}'
        options = ['randomness.seed=5', 'train_cfg.max_iters=4', 'default_hooks.checkpoint.interval=2']
        train = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(CONFIG), '--cfg-options', *options]
        train += [f'train_cfg.max_iters={stop}', '--work-dir', str(work_dir / f'{CONFIG.stem}+v' / 'seed5')]
        subprocess.run(train, cwd=folder, check=True, capture_output=True)
        result = run(
            CONFIG, '--seeds', 5, '--work-dir', work_dir, '--variant', 'v', '--cfg-options', *options[1:], folder=folder
        )
        assert result.returncode == 0, result.stderr
        log = (work_dir / f'{CONFIG.stem}+v' / 'seed5' / 'train.txt').read_text()
        assert f'resumed epoch: 0, iter: {stop}' in log
        line = json.loads((work_dir / 'results.jsonl').read_text())
        scores.append(line['scores'])
    assert scores[0].keys() == {'accuracy/top1'} and scores[0] == scores[1]


def test_long_tailed__results_of_another_version_of_the_config(folder):
    file = folder / 'other' / 'results.jsonl'
    file.parent.mkdir()
    file.write_text(json.dumps(dict(config=CONFIG.stem, variant=None, seed=0, scores={}, digest='0')) + '\n')
    result = run(CONFIG, '--seeds', 0, '--work-dir', file.parent, folder=folder)
    assert result.returncode == 1
    assert f'the results of {CONFIG.stem}, seed 0, are those of another version of the config' in result.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['absent.py'], 'there is no config absent.py'),
        ([CONFIG, '--cfg-options', 'train_cfg.max_iters=2'], '--cfg-options needs a --variant'),
    ],
)
def test_long_tailed__wrong_arguments(arguments, message, tmp_path):
    result = run(*arguments, folder=tmp_path)
    assert result.returncode == 2 and message in result.stderr and 'Traceback' not in result.stderr


def test_long_tailed__page_without_the_mark(folder):
    page = folder / 'other.md'
    page.write_text('nothing')
    result = run(CONFIG, '--table-only', '--page', page, '--mark', 'here', folder=folder)
    assert result.returncode == 1 and 'has no lines `<!-- here -->` and `<!-- end -->`' in result.stderr
    assert page.read_text() == 'nothing'
