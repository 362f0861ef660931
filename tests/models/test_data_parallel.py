"""SARDistributedDataParallel: what it sends, and that it trains as MMDistributedDataParallel does."""

import pytest
import torch
from processes import train_without_projectors
from small_models import KINDS, make_model
from state_dicts import equal, largest_difference

import sar_mm  # noqa: F401
from sar_mm.engine.data_parallel import SARDistributedDataParallel, projector_parameters
from sar_mm.models import SARLoss
from sar_mm.registry import MODEL_WRAPPERS, MODELS

STOCK, SAR = 'MMDistributedDataParallel', 'SARDistributedDataParallel'


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_data_parallel__trains_alike_and_sends_what_the_stock_model_sends(kind, opened, run_processes):
    model = opened(kind, dict(momentum=0.9))
    job = dict(model=model, steps=30, interval=10)
    results = run_processes(2, train_without_projectors, **job)
    stock_size = sum(each.numel() for each in make_model(kind, sar=False).parameters())
    for states, sent, _ in (result[SAR] for result in results):
        assert sent == stock_size
        assert all(equal(one, other) for one, other in zip(states, results[0][SAR][0]))
    for one, other in zip(results[0][SAR][0], results[0][STOCK][0]):
        assert largest_difference(one, other) < 1e-5  # two processes: a mean of equal gradients is exact
    assert results[0][STOCK][1] > stock_size


@pytest.mark.ci
@pytest.mark.slow
def test_data_parallel__projectors_that_differ_become_those_of_the_main_process(opened, run_processes):
    job = dict(model=opened('cls'), steps=5, interval=4, change=0.1)
    (before, _, moments), (other_before, _, other_moments) = (
        result[SAR] for result in run_processes(2, train_without_projectors, **job)
    )
    assert largest_difference(before[0], other_before[0]) > 0.05
    job.update(interval=5)
    (states, _, moments), (other_states, _, other_moments) = (
        result[SAR] for result in run_processes(2, train_without_projectors, **job)
    )
    names = [name for name in states[0] if '.projector.' in name or '.semantic_anchors' in name]
    assert len(names) == 12 and equal(*({name: each[0][name] for name in names} for each in (states, other_states)))
    assert all(torch.equal(one, other) for one, other in zip(moments, other_moments))


def test_projector_parameters__of_all_anchor_heads():
    pytest.importorskip('mmseg.models')
    model = make_model('seg')
    names = projector_parameters(model)
    assert len(names) == 11 and all(name.startswith('decode_head.anchor_head.projector.') for name in names)
    model.decode_head.anchor_head.projector.requires_grad_(False)
    assert not projector_parameters(model)
    assert not projector_parameters(make_model('seg', sar=False))


def test_projector_parameters__not_where_a_loss_may_use_features():
    pytest.importorskip('mmpretrain.models')

    @MODELS.register_module(force=True)
    class ForwardOfFeatures(SARLoss):
        def forward(self, feature, **options):
            return dict(super().forward(feature=feature, **options), loss_own=feature.mean())

    @MODELS.register_module(force=True)
    class PullOfTheUser(SARLoss):
        def pull(self, feature, semantic_anchors, **options):  # the semantic anchors pass no gradient on
            return super().pull(feature=2 * feature, semantic_anchors=semantic_anchors, **options)

    for loss, number in (('ForwardOfFeatures', 0), ('PullOfTheUser', 11), ('LogitAdjustedSARLoss', 11)):
        assert len(projector_parameters(make_model('cls', dict(loss=dict(type=loss))))) == number, loss


def test_data_parallel__leaves_out_what_the_model_does_and_sends_at_least_one(tmp_path):
    pytest.importorskip('mmpretrain.models')
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        model = make_model('cls')
        model._ddp_params_and_buffers_to_ignore = ['head.fc.bias']
        wrapped = SARDistributedDataParallel(module=model, device_ids=None, broadcast_buffers=False)
        assert wrapped.parameters_to_ignore == {'head.fc.bias', *projector_parameters(model)}
        alone = make_model('cls').requires_grad_(False)
        alone.head.anchor_head.projector.requires_grad_(True)
        wrapped = SARDistributedDataParallel(module=alone, device_ids=None, broadcast_buffers=False)
        assert not wrapped.parameters_to_ignore
    finally:
        torch.distributed.destroy_process_group()


def test_data_parallel__is_registered_and_checks_its_interval():
    assert MODEL_WRAPPERS.get(SAR) is SARDistributedDataParallel
    with pytest.raises(ValueError, match='`check_interval` to be an integer of at least 1, but got 0'):
        SARDistributedDataParallel(torch.nn.Linear(1, 1), check_interval=0)
