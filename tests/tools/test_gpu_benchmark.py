"""tools/benchmarks/gpu.py: its parts, what becomes of one that fails, and the report."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'gpu.py'
MODELS = ['fcn-hrnet-w48', 'deeplabv3plus-r50', 'segformer-b0', 'upernet-swin-t', 'resnet50', 'vit-b16']
# Starts a process that would write a file after the part was ended.
LATE = """
import subprocess, sys, time
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3); open("late", "w")'])
time.sleep(60)
"""
TESTS = """<testsuites><testsuite>
<testcase classname="tests.ops.test_pull" name="test_a[1]"/>
<testcase classname="tests.ops.test_pull" name="test_b"><failure message="assert 1 == 2&#10;more"/></testcase>
<testcase classname="tests.models.test_amp" name="test_c"><skipped message="no compiler"/></testcase>
<testcase classname="" name="tests.test_d"><error message="ImportError: e"/></testcase>
</testsuite></testsuites>"""


def python(module, name, code, share=10.0):
    return module.Part('pull_op', name, ['-c', code], share)


# ----- Parts


def test_gpu__parts_of_a_run(scripts, tmp_path):
    one, two, short = (scripts.gpu.parts_of(tmp_path, gpus, gpus == 0) for gpus in (1, 2, 0))
    names = ['tests', 'pull_op', *(f'train_step-{model}' for model in MODELS), 'data_parallel']
    assert [part.name for part in one] == [part.name for part in two] == names
    assert 'two GPUs' in one[-1].left_out and not two[-1].left_out
    assert [part.name for part in short][2:] == ['train_step-segformer-b0', 'train_step-resnet50', 'data_parallel']
    for part in one[1:]:
        device = part.arguments.index('--device')
        assert part.arguments[device : device + 4] == ['--device', 'cuda', '--out', str(tmp_path / f'{part.name}.json')]
    assert all('cpu' in part.arguments for part in short[1:])


def test_gpu__arguments_are_those_of_the_scripts(scripts, tmp_path):
    for part in scripts.gpu.parts_of(tmp_path, 0, True)[1:]:
        script, *arguments = part.arguments
        getattr(scripts, Path(script).stem).parse_arguments(arguments)


def test_gpu__tests_are_those_of_the_marker(scripts, tmp_path, monkeypatch):
    part = scripts.gpu.tests_part(tmp_path)
    files = {Path(argument).name for argument in part.arguments if argument.endswith('.py')}
    assert files == {'test_pull_triton.py', 'test_compile.py', 'test_step_cost.py', 'test_amp.py'}
    monkeypatch.setattr(scripts.gpu, 'ROOT', tmp_path)
    assert 'clone of the repository' in scripts.gpu.tests_part(tmp_path).missing
    monkeypatch.setattr(scripts.gpu, 'find_spec', lambda name: None)
    assert scripts.gpu.tests_part(tmp_path).missing == 'pytest is not installed: pip install pytest'


def test_gpu__needs_a_gpu_or_short(scripts, monkeypatch, capsys):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(SystemExit) as error:
        scripts.gpu.parse_arguments(['--out', 'x'])
    assert error.value.code == 2 and 'only --short runs on a CPU' in capsys.readouterr().err
    assert scripts.gpu.parse_arguments(['--out', 'x', '--short']).gpus == 0


# ----- Running


def test_gpu__one_failure_does_not_lose_the_other_parts(scripts, tmp_path):
    gpu = scripts.gpu
    parts = [
        python(gpu, 'wrong', 'import sys; print("a"); sys.exit("told why")'),
        gpu.Part('tests', 'tests', [], 0, missing='pytest is not installed'),
        python(gpu, 'slow', LATE, share=0.01),
        python(gpu, 'right', 'print("| b |")'),
        gpu.Part('data_parallel', 'data_parallel', [], 0, left_out='needs two GPUs'),
    ]
    start = time.monotonic()
    results = gpu.run_all(parts, tmp_path, seconds=200)
    assert time.monotonic() - start < 60
    outcomes = [(result['name'], result['outcome']) for result in results]
    failed = [(name, 'failed') for name in ('wrong', 'tests', 'slow')]
    assert outcomes == [*failed, ('right', 'passed'), ('data_parallel', 'left out')]
    assert [results[index]['reason'] for index in (0, 1, 4)] == [
        'exit code 1', 'pytest is not installed', 'needs two GPUs',
    ]  # fmt: skip
    assert 'took longer than its 0 s' in results[2]['reason']
    assert (tmp_path / 'right.out').read_text() == '| b |\n'
    text = gpu.failure_text(results[0], tmp_path)
    assert text == '**wrong failed**: exit code 1\n\n```\na\ntold why\n```'


def test_gpu__ends_the_processes_of_a_part(scripts, tmp_path):
    part = python(scripts.gpu, 'slow', LATE)
    result = scripts.gpu.run_part(part, tmp_path, limit=1.5)
    time.sleep(3)
    assert result['outcome'] == 'failed' and not (tmp_path / 'late').exists()


@pytest.mark.parametrize('code, outcome', [('0', 0), ('1', 1)])
def test_gpu__exit_code(code, outcome, scripts, tmp_path, monkeypatch, capsys):
    script = f'open("pull_op.json", "w").write("{{}}"); print("done"); raise SystemExit({code})'
    monkeypatch.setattr(scripts.gpu, 'parts_of', lambda *args: [python(scripts.gpu, 'pull_op', script)])
    args = SimpleNamespace(out=tmp_path / 'new', gpus=0, short=True, minutes=5)
    assert scripts.gpu.main(args) == outcome
    assert capsys.readouterr().out == (tmp_path / 'new' / 'gpu.md').read_text()


@pytest.mark.parametrize('gpus, outcome', [(0, 'left out'), (1, 'failed')])
def test_gpu__skipped_tests_are_no_pass(gpus, outcome, scripts, tmp_path):
    result = dict(kind='tests', name='tests', outcome='passed', reason='', seconds=1)
    file = tmp_path / 'tests.xml'
    file.write_text(TESTS)
    assert scripts.gpu.check_tests(result, tmp_path, gpus) == result
    file.write_text('<testsuites><testcase name="a"><skipped message="needs a GPU"/></testcase></testsuites>')
    found = scripts.gpu.check_tests(result, tmp_path, gpus)
    assert (found['outcome'], found['reason']) == (outcome, 'all tests were skipped')
    assert scripts.gpu.check_tests(dict(result, kind='pull_op'), tmp_path, gpus)['outcome'] == 'passed'


# ----- The report


def test_gpu__report(scripts, tmp_path):
    (tmp_path / 'tests.xml').write_text(TESTS)
    head = '{}; torch 2; medians of 1 rounds.\n\n| model | ms |\n| --- | ---: |\n| {} | 1 |\n'
    for model in ('a', 'b'):
        (tmp_path / f'train_step-{model}.out').write_text(head.format('GPU', model))
        (tmp_path / f'train_step-{model}.json').write_text(json.dumps(dict(rows=[model])))
    (tmp_path / 'train_step-c.err').write_text('\n'.join(f'line {number}' for number in range(30)))
    results = [
        dict(kind='tests', name='tests', outcome='failed', reason='exit code 1', seconds=9.4),
        *(
            dict(kind='train_step', name=f'train_step-{model}', outcome='passed', reason='', seconds=2)
            for model in 'ab'
        ),
        dict(kind='train_step', name='train_step-c', outcome='failed', reason='exit code 2', seconds=2),
        dict(kind='data_parallel', name='data_parallel', outcome='left out', reason='needs two GPUs', seconds=0),
    ]
    machine = dict(device='A GPU', torch='2', driver='550.1', CUDA='12')
    text = scripts.gpu.write_report(machine, results, tmp_path)
    assert text == (tmp_path / 'gpu.md').read_text()
    assert text.startswith('# sar_mm on A GPU\n\ntorch 2, driver 550.1, CUDA 12\n\n| part | outcome | s |')
    assert '| test_pull | 1 | 1 | 0 |\n| test_amp | 0 | 0 | 1 |\n| tests.test_d | 0 | 1 | 0 |' in text
    assert '- `test_b`: assert 1 == 2\n- `tests.test_d`: ImportError: e\n' in text and 'Skipped: no compiler' in text
    assert '| model | ms |\n| --- | ---: |\n| a | 1 |\n| b | 1 |\n' in text and text.count('| model | ms |') == 1
    assert '**train_step-c failed**: exit code 2\n\n```\nline 15\n' in text and 'line 14' not in text
    assert 'Left out: needs two GPUs.' in text
    parts = json.loads((tmp_path / 'gpu.json').read_text())['parts']
    assert [part.get('measured') for part in parts] == [None, dict(rows=['a']), dict(rows=['b']), None, None]
    assert [test['outcome'] for test in parts[0]['tests']] == ['passed', 'failed', 'skipped', 'failed']


@pytest.mark.slow
def test_gpu__short_on_a_cpu(tmp_path):
    pytest.importorskip('mmseg.models')
    pytest.importorskip('mmpretrain.models')
    environment = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    command = [sys.executable, str(SCRIPT), '--short', '--out', 'results', '--minutes', '30']
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1900)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    report = json.loads((tmp_path / 'results' / 'gpu.json').read_text())
    assert [part['outcome'] for part in report['parts']] == ['left out', *['passed'] * 4]
    assert {test['outcome'] for test in report['parts'][0]['tests']} == {'skipped'}
    assert report['parts'][-1]['measured']['rows'][0]['processes'] == 2
    assert result.stdout == (tmp_path / 'results' / 'gpu.md').read_text()
