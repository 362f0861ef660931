"""Semi-supervised models where no unlabeled image counts, or not fully yet: supervised training, and the warm-up."""

import time
from copy import deepcopy

import pytest
import torch
from mmengine.logging import MessageHub
from semi_steps import KINDS, assert_same_state, student_state, train


def plain_batch(items, kind):
    from mmengine.dataset import pseudo_collate

    return pseudo_collate([item.labeled for item in items if 'labeled' in item])


@pytest.mark.parametrize('sar', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_no_pseudo_labels__equal_supervised_training_exactly(kind, sar, make_semi, make_items):
    plain = make_semi(kind, sar)
    semi = make_semi(kind, sar, semi=dict(joint_forward=False, teacher={}))
    semi.pseudo_labels.threshold.value = 2.0
    assert_same_state(student_state(semi), plain.state_dict())
    batches = [make_items(kind, step=step) for step in range(4)]
    logs = train(semi, deepcopy(batches))
    plain_logs = train(plain, [plain_batch(batch, kind) for batch in batches])
    assert_same_state(student_state(semi), plain.state_dict())  # running statistics, too
    for log, plain_log in zip(logs, plain_logs):
        assert log['loss_unsup'] == 0 and log['pseudo_ratio'] == 0
        assert {name: log[name] for name in plain_log} == plain_log


@pytest.mark.parametrize('kind', KINDS)
def test_joint_forward__differs_by_batch_normalisation_only(kind, make_semi, make_items):
    models = [make_semi(kind, semi=dict(threshold=0.4, joint_forward=joint)) for joint in (True, False)]
    for model in models:
        for module in model.student.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    torch.manual_seed(1)
    one = train(models[0], [make_items(kind)])[0]
    torch.manual_seed(1)
    other = train(models[1], [make_items(kind)])[0]
    assert one['loss_unsup'] > 0
    for name, value in other.items():
        if 'acc_seg' not in name:  # of all images in one forward pass
            torch.testing.assert_close(one[name], value)
    for name, value in models[1].state_dict().items():
        torch.testing.assert_close(models[0].state_dict()[name], value)


@pytest.fixture
def hub(monkeypatch):
    hub = MessageHub.get_instance(f'semi-{time.time_ns()}')
    monkeypatch.setattr(MessageHub, 'get_current_instance', lambda: hub)
    return hub


def test_warmup__raises_the_weight_linearly(make_semi, make_items, hub):
    model = make_semi('cls', semi=dict(threshold=0.0, warmup_iters=4))
    reference = make_semi('cls', semi=dict(threshold=0.0))
    for step in range(6):
        data = make_items('cls', step=step)
        reference.load_state_dict(model.state_dict())
        full = train(reference, [deepcopy(data)])[0]['loss_unsup']
        hub.update_info('iter', step)  # as RuntimeInfoHook does
        torch.testing.assert_close(train(model, [data])[0]['loss_unsup'], min(step / 4, 1) * full)


def test_warmup__starts_with_the_run_whatever_is_loaded(make_semi, make_items, hub):
    trained = make_semi('cls', semi=dict(threshold=0.0, warmup_iters=4))
    hub.update_info('iter', 100)
    assert train(trained, [make_items('cls')])[0]['loss_unsup'] > 0
    model = make_semi('cls', semi=dict(threshold=0.0, warmup_iters=4))
    model.load_state_dict({**trained.state_dict(), 'steps': torch.tensor(100)})  # 0.1.0 saved the steps
    hub.update_info('iter', 0)
    assert train(model, [make_items('cls')])[0]['loss_unsup'] == 0


def test_warmup__without_a_runner(make_semi, make_items, hub):
    with pytest.raises(RuntimeError, match='semi.warmup_iters counts the steps of a Runner'):
        train(make_semi('cls', semi=dict(warmup_iters=4)), [make_items('cls')])
