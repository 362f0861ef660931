"""tools/benchmarks/growth.py: points, slopes, table and figure."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'growth.py'


def made_up(axis, part, points, cores=2):
    """Rows of a part; each point is x and its median."""
    fixed = dict(classes=10, channels=8, pixels=64, processes=1, cores=cores)
    return [
        {**fixed, axis: x, 'axis': axis, 'part': part, 'x': x, 'median': y, 'quartiles': [0.9 * y, 1.1 * y]}
        for x, y in points
    ]


@pytest.fixture
def rows():
    squares = [(x, x**2) for x in (10, 100, 1000)]
    processes = [(1, 5.0), (2, 5.0), (3, 9.0), (4, 12.0)]
    return [
        *made_up('classes', 'anchors', [(1, 7.0), *squares]),
        *made_up('classes', 'pull', [(x, 3.0) for x in (1, 10, 100, 1000)]),
        *(row for part in ('anchors', 'pull') for row in made_up('processes', part, processes)),
    ]


def test_growth__slope_is_that_of_the_upper_half(scripts, rows):
    growth = scripts.growth
    of = {key: growth.slope(growth.fitted(growth.select(rows, *key))) for key in {(r['axis'], r['part']) for r in rows}}
    assert of['classes', 'anchors'] == pytest.approx(2)
    assert of['classes', 'pull'] == pytest.approx(0)
    assert of['processes', 'pull'] == pytest.approx(0)  # of 1 and 2, as there are two cores
    assert growth.slope(rows[:1]) is None


def test_growth__table_and_figure(scripts, rows, tmp_path):
    lines = scripts.growth.render(rows).splitlines()
    assert lines[2] == '| 1 to 1,000 classes | 7 | 1e+06 | 2.00 | 3 | 3 | 0.00 |  |  |'
    assert lines[3].startswith('| 1 to 4 processes | 5 | 12 | ') and len(lines) == 4
    scripts.growth.draw(rows, tmp_path / 'growth.png')
    assert (tmp_path / 'growth.png').read_bytes().startswith(b'\x89PNG')


def test_growth__points_cover_the_ranges(scripts):
    points = scripts.growth.points_of(False)
    ends = {axis: (getattr(each[0], axis), getattr(each[-1], axis)) for axis, each in points.items()}
    assert ends == dict(classes=(10, 21841), channels=(64, 3072), pixels=(1000, 10**7), processes=(1, 4))
    for sizes in (each for axis in points.values() for each in axis):
        assert sizes.pixels % 8 == 0
        assert sizes.processes * 2 * sizes.channels * sizes.pixels * 4 < 6e9  # a feature and its gradient


def test_growth__times_both_parts(scripts):
    growth = scripts.growth
    calls = []
    before = partial(calls.append, 1)
    device = torch.device('cpu')
    times = growth.times_of(growth.steps_of(growth.Sizes(5, 8, 64), device), device, rounds=3, before=before)
    assert {part: len(ms) for part, ms in times.items()} == dict(anchors=3, pull=3)
    assert len(calls) == 2 * (3 + 1)  # with the round that warms up
    assert growth.summary([4.0, 1.0, 3.0, 2.0, 5.0]) == dict(median=3.0, quartiles=[2.0, 4.0])
    assert growth.summary([4.0]) == dict(median=4.0, quartiles=[4.0, 4.0])


def test_growth__of_one_number_of_classes(scripts, tmp_path):
    out = tmp_path / 'growth.jsonl'
    command = ['--only', '9', '8', '--rounds', '2', '--device', 'cpu', '--out', str(out)]
    scripts.growth.main(scripts.growth.parse_arguments(command))
    anchors, pull = (json.loads(line) for line in out.read_text().splitlines())
    assert (anchors['part'], anchors['classes'], anchors['channels']) == ('anchors', 9, 8) and 'mib' not in pull
    weights = 4 * (3 * 8 * 8 + 3 * 8 + 5 * 8) + 4 * (9 * 8 + 9)  # their gradients are a part of it
    assert weights / 2**20 < anchors['mib'] < 100 * weights / 2**20


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--figure', 'absent/x.png'], 'argument --figure: there is no folder absent'),
        (['--page', __file__, '--mark', 'here'], '--page needs --figure FILE as well'),
    ],
)
def test_growth__arguments_refused_with_a_message(arguments, message, scripts, capsys):
    with pytest.raises(SystemExit) as error:
        scripts.growth.parse_arguments([*arguments, '--device', 'cpu'])
    assert error.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_growth__short(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('<!-- here -->\n<!-- end -->\n')
    command = [sys.executable, str(SCRIPT), '--short', '--rounds', '2', '--device', 'cpu', '--threads', '1']
    command += ['--out', 'growth.jsonl', '--figure', 'growth.png', '--page', 'page.md', '--mark', 'here']
    environment = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / 'growth.jsonl').read_text().splitlines()]
    assert len(rows) == 4 * 2 * 2 and {row['processes'] for row in rows} == {1, 2}
    assert all(len(row['ms']) == 2 and min(row['ms']) > 0 and row['made_with']['threads'] == 1 for row in rows)
    assert '](growth.png)' in page.read_text() and (tmp_path / 'growth.png').is_file()
