"""What tools/benchmarks/pull_op.py and train_step.py compare, and what they measure with."""

import pytest
import torch

CPU = torch.device('cpu')


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
