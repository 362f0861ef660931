"""The combination matrix: every two parts of the product that go together, in some row, through a whole run."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from pairs import complete
from parts import FACTORS, ROWS, RULES, SEGMENTATION, name_of
from tiny import hurrying

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def skip_without_toolbox(row):
    pytest.importorskip('mmseg.models' if row['head'] in SEGMENTATION else 'mmpretrain.models')


@pytest.fixture(autouse=True)
def no_waiting():
    with hurrying():
        yield


def numbers_of(processes):
    return [pytest.param(k, id=name_of(row)) for k, row in enumerate(ROWS) if row['processes'] == processes]


@pytest.mark.parametrize('number', numbers_of('1'))
def test_one_process(number, tmp_path):
    skip_without_toolbox(ROWS[number])
    from runs import check_row

    check_row(ROWS[number], tmp_path / 'row')


@pytest.fixture(scope='module')
def together(request, tmp_path_factory):
    """What comes out of the rows that are asked for in two processes, which are started once, and anew after errors."""
    folder = tmp_path_factory.mktemp('two')
    chosen = [item for item in request.session.items if item.originalname == 'test_two_processes']
    numbers = [item.callspec.params['number'] for item in chosen]
    toolboxes = {True: find_spec('mmseg'), False: find_spec('mmpretrain')}
    rest = [number for number in numbers if toolboxes[ROWS[number]['head'] in SEGMENTATION]]
    paths = os.pathsep.join(filter(None, [str(HERE), str(ROOT), os.environ.get('PYTHONPATH')]))
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=paths, CUDA_VISIBLE_DEVICES='')
    found = {}
    while rest:
        command = [sys.executable, str(HERE / 'two_processes.py')]
        outputs = [folder / f'output-{rank}.txt' for rank in range(2)]
        started = []
        for rank, output in enumerate(outputs):
            with output.open('w') as file:
                arguments = [*command, str(rank), str(folder), *map(str, rest)]
                started.append(subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT, env=environment))
        for process in started:
            process.wait(timeout=300)
        before = len(rest)
        for number in list(rest):
            files = [folder / f'{number}.{rank}.json' for rank in range(2)]
            if all(file.exists() for file in files):
                found[number] = [json.loads(file.read_text()) for file in files]
                rest.remove(number)
        assert len(rest) < before, [output.read_text()[-2000:] for output in outputs]
    return found


@pytest.mark.parametrize('number', numbers_of('2'))
def test_two_processes(number, together):
    skip_without_toolbox(ROWS[number])
    one, other = together[number]
    errors = [each['error'] for each in (one, other) if each['error']]
    assert not errors, '\n'.join(errors)
    assert one['weights'] and one['weights'] == other['weights']


@pytest.mark.parametrize('rule', [pytest.param(rule, id=rule.why) for rule in RULES if rule.refusal])
def test_refused__before_the_first_step(rule, tmp_path):
    parts = {factor: values[0] for factor, values in rule.parts.items()}
    row = complete(parts, FACTORS, [other for other in RULES if other is not rule])
    skip_without_toolbox(row)
    from runs import Run
    from settings import Setting

    with pytest.raises(Exception, match=rule.refusal):
        Run(Setting(row, tmp_path), 'refused')
    assert not list(tmp_path.glob('refused/*.pth'))
