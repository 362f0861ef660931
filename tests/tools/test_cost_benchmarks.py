"""tools/benchmarks/pull_op.py and train_step.py, run as a user would, and what they measure with."""

import importlib
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


@pytest.fixture(scope='module')
def scripts():
    """The modules, imported as they import each other: their folder is on the path."""
    names = ['measure', 'pull_op', 'train_step']
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


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


# ----- The scripts


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


# ----- The three ways


def by_hand(feature, labels, anchors):
    """The pull, pixel by pixel."""
    total, count = 0.0, 0
    for image, row, column in [(n, h, w) for n in range(2) for h in range(12) for w in range(12)]:
        label = int(labels[image, row, column])
        if label != 255:
            total = total + (feature[image, :, row, column] - anchors[label]).square().mean()
            count += 1
    return total / count


@pytest.mark.parametrize('name', ['ours', 'gather', 'published'])
def test_formulations__are_the_pull(scripts, name):
    torch.manual_seed(0)
    feature, anchors = torch.randn(2, 6, 12, 12), torch.randn(5, 6)
    labels = scripts.measure.label_map((2, 12, 12), 5, seed=2)
    assert (labels == 255).any()
    results = []
    for way in (by_hand, scripts.pull_op.FORMULATIONS[name]):
        leaf = feature.clone().requires_grad_()
        value = way(leaf, labels, anchors)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize('factor, message', [(1.01, 'gather gives'), (0.0, 'the gradients of gather and published')])
def test_pull_op__refuses_to_time_what_disagrees(scripts, monkeypatch, factor, message):
    """Another value; and the same value without a gradient."""
    gather = scripts.pull_op.FORMULATIONS['gather']

    def wrong(feature, labels, anchors):
        value = gather(feature, labels, anchors)
        return factor * value if factor else value.detach() + 0 * value

    monkeypatch.setitem(scripts.pull_op.FORMULATIONS, 'gather', wrong)
    with pytest.raises(SystemExit, match=message):
        scripts.pull_op.measure((2, 16, 16, 16), 5, 'float32', False, CPU, rounds=1)


# ----- What they measure with


def test_peak_memory__is_that_of_the_step(scripts):
    held = [torch.empty(5000)]

    def step():
        first = torch.empty(1000)  # 4000 bytes
        second = torch.empty(500)  # 6000
        del first  # 2000
        third = torch.empty(300, dtype=torch.float64)  # 4400
        del second, third
        held.append(torch.empty(100))  # 400, and stays

    assert scripts.measure.peak_memory(step, CPU) == 6000
    held.clear()
    assert scripts.measure.peak_memory(step, CPU) == 6000


def test_peak_memory__of_a_backward_pass(scripts):
    feature = torch.ones(1000, requires_grad=True)
    ones = torch.ones(1000)

    def step():
        (feature * ones).backward(ones)  # the product, then the gradient, which stays

    for _ in range(2):
        feature.grad = None
        assert scripts.measure.peak_memory(step, CPU) == 8000


def test_peak_memory__memory_of_before_that_is_freed_does_not_count(scripts):
    held = [torch.empty(5000)]

    def step():
        held.clear()
        torch.empty(1000)

    assert scripts.measure.peak_memory(step, CPU) == 4000


def test_host_waits__counts_what_reads_values_but_not_the_optimizer(scripts):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])

    def step():
        loss = (weight * 2).sum()
        loss.backward()
        optimizer.step()
        assert loss > 0
        loss.item()
        weight.detach()[weight.detach() > 0]

    events = scripts.measure.trace(step, CPU)
    waits = scripts.measure.host_waits(events, CPU)
    assert waits == {'aten::_local_scalar_dense': 2, 'aten::nonzero': 1}


def test_collectives__counts_calls_and_numbers(scripts):
    events = [
        dict(name='c10d::allreduce_', args={'Input Dims': [[[220]], [], []]}),
        dict(name='c10d::allreduce_', args={'Input Dims': [[[3, 4]], [], []]}),
        dict(name='c10d::_allgather_base_', args={'Input Dims': [[5], [10]]}),
        dict(name='c10d::barrier', args={}),
        dict(name='aten::add', args={'Input Dims': [[7]]}),
    ]
    calls, sent = scripts.measure.collectives(events)
    assert calls == {'c10d::allreduce_': 2, 'c10d::_allgather_base_': 1, 'c10d::barrier': 1}
    assert sent == 220 + 12 + 5


def test_median_times__runs_all_in_every_round_in_rotating_order(scripts):
    order = []
    steps = {name: lambda name=name: order.append(name) for name in 'abc'}
    times = scripts.measure.median_times(steps, CPU, rounds=4, warm_up=1)
    assert ''.join(order) == 'cab' + 'abc' + 'bca' + 'cab' + 'abc'
    assert set(times) == set('abc') and all(value >= 0 for value in times.values())


def test_label_map__blocks_some_ignored(scripts):
    labels = scripts.measure.label_map((4, 90, 130), 19)
    assert labels.shape == (4, 90, 130)
    blocks = labels[:, ::8, ::8]
    assert torch.equal(labels, blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :90, :130])
    assert (labels == 255).float().mean().item() == pytest.approx(0.1, abs=0.03)
    assert set(labels.unique().tolist()) == {*range(19), 255}


def test_write_page__without_the_marks(scripts, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('text\n')
    with pytest.raises(SystemExit, match='has no lines `<!-- here -->` and `<!-- end -->`'):
        scripts.measure.write_page(page, 'here', 'table')
    assert page.read_text() == 'text\n'
