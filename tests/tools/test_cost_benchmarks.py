"""tools/benchmarks/pull_op.py and train_step.py, run as a user would."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).parents[2] / 'tools' / 'benchmarks'
CPU = torch.device('cpu')


def run(script, *arguments, folder):
    """Run a script on a CPU; return its JSON and the page it wrote a table into."""
    page = folder / 'page.md'
    page.write_text('before\n<!-- here -->\nold\n<!-- end -->\nafter\n')
    options = ['--device', 'cpu', '--threads', 1, '--out', 'out.json', '--page', 'page.md', '--mark', 'here']
    command = [sys.executable, str(FOLDER / script), *map(str, [*arguments, *options])]
    environment = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    text = page.read_text()
    assert text == f'before\n<!-- here -->\n{result.stdout}<!-- end -->\nafter\n'
    out = json.loads((folder / 'out.json').read_text())
    head = f'{out["device"]}; threads 1, torch {torch.__version__}, sar_mm {out["sar_mm"]}'
    assert result.stdout.startswith(head)
    assert out['threads'] == 1
    return out['rows'], result.stdout.split('\n\n')[1].splitlines()


def numbers(node):
    if isinstance(node, dict):
        return [number for value in node.values() for number in numbers(value)]
    return [node] if isinstance(node, (int, float)) else []


def test_pull_op__writes_json_and_a_table(tmp_path):
    arguments = ['--shape', 2, 16, 16, 16, '--num-classes', 5, 7, '--rounds', 2, '--channels-last']
    rows, lines = run('pull_op.py', *arguments, folder=tmp_path)
    layouts = ['contiguous', 'channels_last'] * 2
    assert [(row['num_classes'], row['layout']) for row in rows] == list(zip([5, 5, 7, 7], layouts))
    for row in rows:
        assert row['dtype'] == 'float32' and row['shape'] == [2, 16, 16, 16]
        ms = row['ms']
        assert set(ms) == {'ours', 'gather', 'published', 'copy', 'clone'} and all(value > 0 for value in ms.values())
        assert all(map(math.isfinite, numbers(row)))
        assert row['published_over_ours'] == ms['published'] / ms['ours']
        for name, share in row['bandwidth_share_percent'].items():
            assert share == pytest.approx(150 * ms[name] / ms['ours'])
        # The second feature map, at least.
        assert row['extra_memory_percent']['published'] > 100
    assert len(lines) == 2 + len(rows)
    assert lines[2].startswith('| 5, float32, contiguous | ')
    assert len({line.count('|') for line in lines}) == 1


def check_train_step(rows, lines, names, processes=1):
    assert [row['model'] for row in rows] == names
    for row, line in zip(rows, lines[2:]):
        assert row['processes'] == processes
        assert all(map(math.isfinite, numbers(row)))
        assert row['time_ratio'] == row['ms']['sar'] / row['ms']['stock'] > 0
        assert row['memory_ratio'] == row['memory_mib']['sar'] / row['memory_mib']['stock'] > 1
        assert row['host_waits_added'] == 0
        height, width = row['size']
        assert line.startswith(f'| {row["model"]} | {row["batch_size"]} | {height}x{width} | ')
    assert len(lines) == 2 + len(rows)
    assert len({line.count('|') for line in lines}) == 1


def test_train_step__segmentation(tmp_path):
    pytest.importorskip('mmseg.models')
    arguments = ['--models', 'segformer-b0', '--size', 64, 64, '--batch-size', 1, '--rounds', 1]
    rows, lines = run('train_step.py', *arguments, folder=tmp_path)
    check_train_step(rows, lines, ['segformer-b0'])


@pytest.mark.slow
@pytest.mark.parametrize('name, toolbox', [('quickstart-unet', 'mmseg.models'), ('resnet8', 'mmpretrain.models')])
def test_train_step__compares_with_the_plain_formula(name, toolbox, tmp_path):
    pytest.importorskip(toolbox)
    rows, lines = run('train_step.py', '--models', name, '--batch-size', 2, '--rounds', 1, '--plain', folder=tmp_path)
    check_train_step(rows, lines, [name])
    (row,) = rows
    assert row['plain_time_ratio'] == row['ms']['plain'] / row['ms']['sar'] > 0
    assert row['plain_memory_ratio'] == row['memory_mib']['plain'] / row['memory_mib']['sar'] > 0
    assert lines[0].endswith('| plain / SAR, time | plain / SAR, memory |')


def test_training__takes_the_pull_of_its_kind(scripts, monkeypatch):
    pytest.importorskip('mmpretrain.models')
    from sar_mm.ops import pull

    monkeypatch.setenv('SAR_MM_PULL', 'auto')
    used = []
    monkeypatch.setattr(pull, '_run', lambda *args, real=pull._run: used.append(args[0]) or real(*args))
    stock = scripts.train_step.STOCK['resnet8']
    args = SimpleNamespace(device=CPU, processes=1, amp=None, compile=False)
    for kind, expected in dict(stock=[], sar=['pull_value', 'pull_gradient'], plain=[]).items():
        cfg = scripts.train_step.read_config(stock.config, kind, stock.size)
        used.clear()
        scripts.train_step.Training(cfg, kind, 2, stock.size, args)()
        assert used == expected


@pytest.mark.slow
def test_train_step__classification(tmp_path):
    pytest.importorskip('mmpretrain.models')
    arguments = ['--models', 'resnet50', 'vit-b16', '--size', 32, 32, '--batch-size', 2, '--rounds', 1]
    rows, lines = run('train_step.py', *arguments, folder=tmp_path)
    check_train_step(rows, lines, ['resnet50', 'vit-b16'])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['fcn-hrnet-w48', 'deeplabv3plus-r50', 'upernet-swin-t'])
def test_train_step__other_segmentation_models(name, tmp_path):
    pytest.importorskip('mmseg.models')
    arguments = ['--models', name, '--size', 64, 64, '--batch-size', 2, '--rounds', 1]
    rows, lines = run('train_step.py', *arguments, folder=tmp_path)
    check_train_step(rows, lines, [name])


@pytest.mark.slow
def test_train_step__two_processes_count_collectives(tmp_path):
    pytest.importorskip('mmseg.models')
    arguments = ['--models', 'segformer-b0', '--size', 64, 64, '--batch-size', 1, '--rounds', 1, '--processes', 2]
    rows, lines = run('train_step.py', *arguments, folder=tmp_path)
    check_train_step(rows, lines, ['segformer-b0'], processes=2)
    assert rows[0]['collectives_added'] == 0
    stock = rows[0]['collectives']['stock']
    assert set(stock) == {'c10d::allreduce_'} and stock['c10d::allreduce_'] >= 1
    # Every gradient of the stock model is averaged, once.
    assert rows[0]['communicated_numbers']['stock'] == pytest.approx(3.75e6, rel=0.01)


@pytest.mark.parametrize(
    'script, arguments, message',
    [
        ('pull_op', ['--shape', '2', '0', '9', '9'], "--shape: expected an integer of at least 1, but got '0'"),
        ('pull_op', ['--rounds', 'x'], "argument --rounds: expected an integer of at least 1, but got 'x'"),
        ('pull_op', ['--dtypes', 'float64'], "argument --dtypes: invalid choice: 'float64' (choose from"),
        ('pull_op', ['--page', 'page.md'], '--page FILE and --mark NAME belong together'),
        ('pull_op', ['--page', 'absent.md', '--mark', 'here'], 'argument --page: there is no file absent.md'),
        ('pull_op', ['--out', 'absent/out.json'], 'argument --out: there is no folder absent'),
        ('train_step', ['--models', 'resnet51'], "argument --models: invalid choice: 'resnet51' (choose from"),
        ('train_step', ['--size', '64', '65'], "argument --size: expected a multiple of 32, but got '65'"),
        (
            'train_step',
            ['--models', 'deeplabv3plus-r50', '--batch-size', '1'],
            'argument --batch-size: 1 is too small for deeplabv3plus-r50',
        ),
        ('train_step', ['--models', 'segformer-b0', '--amp', 'bf16'], 'argument --amp: bf16 needs a GPU'),
    ],
)
def test_arguments__refused_with_a_message(scripts, capsys, script, arguments, message):
    pytest.importorskip('mmseg')
    pytest.importorskip('mmpretrain')
    with pytest.raises(SystemExit) as error:
        getattr(scripts, script).parse_arguments([*arguments, '--device', 'cpu'])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
