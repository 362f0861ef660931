"""Several processes: what they agree on, and what SAR sends between them."""

from collections import Counter

import pytest
import torch
from processes import collectives, gradients, sharded_steps, train, train_sharded
from small_models import KINDS, TOOLBOX, gate_of
from state_dicts import equal, largest_difference, mean_of

# ----- One step


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_ddp__gradients_equal_those_of_one_process(kind, opened, run_processes):
    no_dropout = dict(dropout_ratio=0) if kind == 'seg' else {}
    options = [dict(sync_valid=True), dict(sync_valid=True, class_balanced=True), dict()]
    models = [opened(kind, dict(loss=dict(each, pull_weight=10.0)), **no_dropout) for each in options]
    expected = gradients(dict(models=models), 0, 1)
    # What the last of them is to find in two processes: each part of the batch on its own, and the mean of both.
    mean_of_means = mean_of([gradients(dict(models=models[2:]), rank, 2)[0][0] for rank in range(2)])
    assert largest_difference(mean_of_means, expected[2][0]) > 1e-2
    expected[2] = (mean_of_means, expected[2][1])
    for results in run_processes(2, gradients, models=models):
        for (found, anchors), (expected_gradients, expected_anchors) in zip(results, expected):
            assert largest_difference(found, expected_gradients) < 1e-5
            assert torch.equal(anchors, expected_anchors)


@pytest.mark.slow
@pytest.mark.parametrize('kind', [pytest.param('seg', marks=pytest.mark.ci), 'cls'])
def test_ddp__collectives_are_those_of_the_stock_model(kind, opened, run_processes):
    models = [
        dict(kind=kind, sar=False),
        opened(kind),
        opened(kind, dict(loss=dict(sync_valid=True))),
        opened(kind, dict(loss=dict(sync_valid=True, class_balanced=True))),
    ]
    for stock, sar, *synced in run_processes(2, collectives, models=models):
        # One bucket of gradients, in every second half step; DDP makes its buckets anew once.
        assert stock[-2:] == [Counter(), Counter({'c10d::allreduce_': 1})]
        assert sar == stock
        for calls in synced:
            assert calls == [each + Counter({'c10d::allreduce_': 1}) for each in stock]


# ----- Many steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ('world', 'dtype'), [pytest.param(2, 'float32', marks=pytest.mark.ci), (4, 'float32'), (2, 'bfloat16')]
)
@pytest.mark.parametrize('kind', KINDS)
def test_ddp__processes_stay_bit_identical(kind, world, dtype, run_processes):
    pytest.importorskip(f'{TOOLBOX[kind]}.models')
    anchor_head = dict(momentum=0.9, matmul_dtype=dtype)
    job = dict(model=dict(kind=kind, anchor_head=anchor_head), steps=200, interval=50)
    job.update(sgd=dict(lr=0.05, momentum=0.9, weight_decay=1e-4))
    (states, gates, losses), *others = run_processes(world, train, **job)
    assert gates[0] == 0 and sum(gates) > 100
    names = [name for name in states[0] if '.anchor_head.' in name]
    assert {name.split('anchor_head.')[1] for name in names} > {'anchors', 'semantic_anchors', 'initialized'}
    assert len(states) == 4 and not equal(states[2], states[3])
    for other_states, other_gates, other_losses in others:
        assert other_losses != losses  # the data differ
        assert other_gates == gates
        assert all(equal(one, other) for one, other in zip(states, other_states))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['seg', pytest.param('cls', marks=pytest.mark.ci)])
def test_fsdp__trains_as_ddp_does(kind, opened, run_processes):
    job = dict(model=opened(kind, dict(momentum=0.9)), steps=20, interval=20, sgd=dict(lr=0.01, momentum=0.9))
    results = run_processes(2, train_sharded, **job)
    for (states, gates, losses), (sharded_states, sharded_gates, sharded_losses), units in results:
        assert units == 2  # the model, and a stage of its backbone
        assert sharded_gates == gates and sum(gates) > 10
        assert sharded_losses == pytest.approx(losses, rel=1e-3)
        assert largest_difference(sharded_states[0], states[0]) < 1e-3
        assert equal(sharded_states[0], results[0][1][0][0])
        assert equal(sharded_states[1], job['model']['state'])


@pytest.mark.ci
@pytest.mark.slow
def test_fsdp__autocast_and_half_parameters_keep_the_anchors_in_float32(opened, run_processes):
    model = opened('cls', dict(momentum=0.5))
    cases = [
        dict(model=model),
        dict(model=model, autocast=True),
        dict(model=model, wrapper=dict(mixed_precision=dict(param_dtype='bfloat16'))),
        dict(model=model, head_is_unit=True),
        dict(model=dict(kind='cls', sar=False), head_is_unit=True),
    ]
    results = run_processes(2, sharded_steps, cases=cases)
    for (expected, _), *low, first_error, second_error in results:
        unit_errors = [first_error, second_error]
        for index, (found, anchors) in enumerate(low, 1):
            assert anchors.dtype == torch.float32
            assert torch.equal(anchors, results[0][index][1])
            for losses, float_losses in zip(found, expected):
                assert gate_of(losses) == 1
                found_losses = {name: value.float() for name, value in losses.items()}
                torch.testing.assert_close(found_losses, float_losses, rtol=(1e-2, 5e-2)[index - 1], atol=5e-3)
        assert all(isinstance(error, str) for error in unit_errors)  # without SAR, too
