"""tools/benchmarks/train_configs.py, on the quickstart's classification config."""

import json
from pathlib import Path

import pytest

pytest.importorskip('mmpretrain.models')

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'benchmarks' / 'train_configs.py'
CONFIG = ROOT / 'configs' / 'quickstart' / 'sar_resnet18_1xb64-300iter_digits-lt.py'


OPTIONS = ['--variant', 'short', '--cfg-options', 'train_cfg.max_iters=4', 'default_hooks.checkpoint.interval=2']


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import train_configs

    return train_configs


@pytest.fixture
def run(run_tool):
    """Run the tool in this process, where it is to train nothing."""
    return lambda *arguments, folder, code=0: run_tool(TOOL, *arguments, folder=folder, code=code)


@pytest.fixture
def train(tool, run_tool, folder, monkeypatch, capsys):
    """Run the tool with all that it starts in this process; return what it prints."""

    def here(command, log, label, pass_fds):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(run_tool(*command))
        print(label)
        return 0.0

    def train(*arguments):
        monkeypatch.setattr(tool, 'run_tool', here)
        monkeypatch.setattr('sys.argv', [TOOL.name, *map(str, arguments)])
        monkeypatch.chdir(folder)
        tool.main(tool.parse_args())
        return capsys.readouterr().out

    return train


@pytest.fixture(scope='module')
def results(run_process, folder):
    """The file with the results of seed 0, trained in processes of their own."""
    output = run_process(TOOL, CONFIG, '--seeds', 0, *OPTIONS, folder=folder)
    file = folder / 'work_dirs' / 'quickstart' / 'results.jsonl'
    (result,) = map(json.loads, file.read_text().splitlines())
    assert f'`{CONFIG.stem}` + short | {result["scores"]["accuracy/top1"]:.1f} | 1 |' in output
    return file


def test_train_configs__trains_once_and_shows_a_table(results, train, folder):
    page = folder / 'page.md'
    page.write_text('before\n<!-- here -->\nold\n<!-- end -->\nafter\n')
    before = results.read_text()
    output = train(CONFIG, '--seeds', 0, 1, *OPTIONS)
    lines = results.read_text()
    assert lines.startswith(before) and output.count('train') == 1
    found = [json.loads(line) for line in lines.splitlines()]
    assert [(run['config'], run['variant']) for run in found] == [(CONFIG.stem, 'short')] * 2
    assert [run['seed'] for run in found] == [0, 1]
    names = {'config', 'variant', 'seed', 'scores', 'validation', 'curves', 'digest', 'torch', 'device'}
    assert all(run.keys() == names for run in found)
    scores = [run['scores']['accuracy/top1'] for run in found]
    mean, spread = sum(scores) / 2, abs(scores[0] - scores[1]) / 2**0.5
    assert f'`{CONFIG.stem}` + short | {mean:.1f} ± {spread:.1f} |' in output

    columns = ['--columns', 'accuracy/top1', '--page', page, '--mark', 'here']
    assert 'train' not in train(CONFIG, '--seeds', 0, 1, *OPTIONS, *columns)
    assert results.read_text() == lines
    text = page.read_text()
    assert text.startswith('before\n<!-- here -->\n| config | accuracy/top1 | seeds |')
    assert text.endswith('<!-- end -->\nafter\n')
    assert 'old' not in text


@pytest.mark.parametrize('stop', [2, 4], ids=['within the training', 'before the test'])
def test_train_configs__goes_on_where_it_was_interrupted(results, train, run_tool, folder, stop):
    work_dir = folder / f'stop{stop}'
    options = ['randomness.seed=0', OPTIONS[-1], f'train_cfg.max_iters={stop}']
    place = work_dir / f'{CONFIG.stem}+short' / 'seed0'
    run_tool(ROOT / 'tools' / 'train.py', CONFIG, '--work-dir', place, '--cfg-options', *options, folder=folder)
    train(CONFIG, '--seeds', 0, '--work-dir', work_dir, *OPTIONS)
    assert f'resumed epoch: 0, iter: {stop}' in (place / 'train.txt').read_text()
    resumed, through = (json.loads(file.read_text().splitlines()[0]) for file in (work_dir / results.name, results))
    assert resumed['scores'].keys() == {'accuracy/top1'} and resumed['scores'] == through['scores']


def test_train_configs__results_of_another_version_of_the_config(run, folder):
    file = folder / 'other' / 'results.jsonl'
    file.parent.mkdir()
    file.write_text(json.dumps(dict(config=CONFIG.stem, variant=None, seed=0, scores={}, digest='0')) + '\n')
    output = run(CONFIG, '--seeds', 0, '--work-dir', file.parent, folder=folder, code=1)
    assert f'the results of {CONFIG.stem}, seed 0, are those of another version of the config' in output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['absent.py'], 'there is no config absent.py'),
        ([CONFIG, '--cfg-options', 'train_cfg.max_iters=2'], '--cfg-options needs a --variant'),
    ],
)
def test_train_configs__wrong_arguments(run, arguments, message, tmp_path):
    assert message in run(*arguments, folder=tmp_path, code=2)


@pytest.fixture
def config(tmp_path):
    def make(path):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
        return path

    return make


def test_train_configs__the_folder_of_results_is_that_of_the_task(run, config, tmp_path):
    semi, other = config('configs/semi_supervised/fashion_mnist/a_b.py'), config('configs/semi_supervised/c_d.py')
    nested = config('configs/sub/configs/long_tailed/e_f.py')
    for task, name in (('semi_supervised', 'a_b'), ('long_tailed', 'e_f')):
        file = tmp_path / 'work_dirs' / task / 'results.jsonl'
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(dict(config=name, variant=None, seed=0, scores=dict(accuracy=50.0))))
    assert '| `a_b` | 50.0 | 1 |' in run(semi, other, '--table-only', folder=tmp_path)
    assert '| `e_f` | 50.0 | 1 |' in run(nested, '--table-only', folder=tmp_path)


@pytest.mark.parametrize(
    ('configs', 'tasks'),
    [
        (['configs/semi_supervised/a.py', 'configs/long_tailed/x/b.py'], 'long_tailed, semi_supervised'),
        (['configs/semi_supervised/a.py', 'elsewhere/c.py'], 'none, semi_supervised'),
        (['configs/d.py'], 'none'),
    ],
)
def test_train_configs__configs_that_are_not_of_one_task(run, configs, tasks, config, tmp_path):
    configs = [config(path) for path in configs]
    failed = run(*configs, '--table-only', folder=tmp_path, code=2)
    assert f'not all of one task, a folder below configs/, but of {tasks}: give a --work-dir' in failed
    run(*configs, '--table-only', '--work-dir', 'any', folder=tmp_path)


def test_train_configs__rows_by_data_set_then_stock_and_sar(run, config, tmp_path):
    rows = [
        'resnet8-fixmatch_1xb32-600iter_fashion-mnist-4',
        'sar_resnet8-fixmatch_1xb32-600iter_fashion-mnist-4',
        'resnet8-supervised_1xb32-200iter_fashion-mnist-4',
        'sar_resnet8-supervised_1xb32-200iter_fashion-mnist-4',
        'resnet8-fixmatch_1xb32-600iter_fashion-mnist-25',
        'sar_resnet8-fixmatch_1xb32-600iter_fashion-mnist-25',
        'resnet8-supervised_1xb32-200iter_fashion-mnist-25',
    ]
    configs = [config(f'configs/semi_supervised/{name}.py') for name in rows]
    runs = [
        dict(config=name, variant=variant, seed=0, scores=dict(accuracy=1.0))
        for name in sorted(rows)
        for variant in ('b', None, 'a')
    ]
    file = tmp_path / 'work_dirs' / 'semi_supervised' / 'results.jsonl'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(map(json.dumps, runs)))
    table = run(*configs, '--table-only', '--all-variants', folder=tmp_path).splitlines()[2:]
    expected = [f'`{name}`{variant}' for name in rows for variant in ('', ' + a', ' + b')]
    assert [line.split('|')[1].strip() for line in table] == expected


def test_train_configs__page_without_the_mark(run, folder):
    page = folder / 'other.md'
    page.write_text('nothing')
    output = run(CONFIG, '--table-only', '--page', page, '--mark', 'here', folder=folder, code=1)
    assert 'has no lines `<!-- here -->` and `<!-- end -->`' in output
    assert page.read_text() == 'nothing'


def test_train_configs__counts_a_seed_once(run, config, tmp_path):
    run_of = dict(config='a_b', variant=None, seed=0)
    lines = [dict(run_of, scores=dict(accuracy=50.0)), dict(run_of, scores=dict(accuracy=60.0))]
    lines.append(dict(run_of, seed=1, scores=dict(accuracy=52.0)))
    file = tmp_path / 'results.jsonl'
    file.write_text('\n'.join(map(json.dumps, lines)))
    arguments = [config('configs/long_tailed/a_b.py'), '--table-only', '--results', file]
    assert '| `a_b` | 51.0 ± 1.4 | 2 |' in run(*arguments, folder=tmp_path)


def test_train_configs__processes_share_a_folder(tool, config, tmp_path, monkeypatch):
    """What another process trains is left to it, and trained once it has given up; nothing is trained twice."""
    trained = []

    def train(run, work_dir, label, lock):
        trained.append(run.config.stem)
        return dict(config=run.config.stem, variant=None, seed=0, scores={}, digest=run.digest())

    monkeypatch.setattr(tool, 'train_and_test', train)
    runs = [tool.Run(tmp_path / config(f'configs/x/{name}.py'), 0) for name in 'abc']
    file = tmp_path / 'results.jsonl'
    with tool.locked(tmp_path / 'b' / 'seed0', wait=False) as is_mine:
        assert is_mine is not None
        with tool.locked(tmp_path / 'b' / 'seed0', wait=False) as again:
            assert again is None
        tool.train_missing(runs, tmp_path, file, wait=False)
        assert trained == ['a', 'c']
    tool.train_missing(runs, tmp_path, file)
    tool.train_missing(runs, tmp_path, file)
    assert trained == ['a', 'c', 'b']
    assert [json.loads(line)['config'] for line in file.read_text().splitlines()] == trained


def test_train_configs__reads_the_log_of_a_resumed_training(tool, tmp_path):
    parts = {
        '1': [dict(lr=0.1, loss=3.0, step=10), dict(lr=0.1, loss=2.0, step=20), dict(accuracy=7.0, step=20)],
        '2': [dict(lr=0.1, loss=2.5, anchor_gate=1.0, step=20), dict(lr=0.1, loss=float('nan'), step=30)],
        '3': [
            {'lr': 0.1, 'loss': 1.23456, 'anchor_gate': 1.0, 'decode.loss_ce': 2.0, 'step': 40},
            dict(accuracy=9.0, time=0.1, step=40),
        ],
    }
    for name, lines in parts.items():
        file = tmp_path / name / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text('\n'.join(map(json.dumps, lines)))
    validation, curves = tool.read_log(tmp_path)
    assert validation == dict(step=[20, 40], accuracy=[7.0, 9.0])
    assert curves.pop('decode.loss_ce') == [None, None, None, 2.0]
    assert curves == dict(step=[10, 20, 30, 40], loss=[3.0, 2.5, None, 1.235], anchor_gate=[None, 1.0, None, 1.0])
