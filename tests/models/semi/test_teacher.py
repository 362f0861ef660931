import pytest
import torch
from mmengine.model import averaged_model
from torch import nn

from sar_mm.models.semi import MeanTeacher
from sar_mm.models.semi.teacher import evaluating, labeling


def make_student():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def change(student):
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    student(torch.randn(8, 3))  # moves the running statistics


@pytest.mark.parametrize('momentum', [0.01, 0.3, 0.7])
@pytest.mark.parametrize('ramp_up', [False, True])
def test_mean_teacher__equals_the_formula(momentum, ramp_up):
    student = make_student()
    teacher = MeanTeacher(student, momentum, ramp_up)
    change(student)
    expected = None
    for step in range(5):
        share = max(momentum, 1 / (step + 1)) if ramp_up else momentum
        now = [parameter.detach().clone() for parameter in student.parameters()]
        expected = now if step == 0 else [(1 - share) * old + share * new for old, new in zip(expected, now)]
        teacher.update_parameters(student)
        for averaged, wanted in zip(teacher.module.parameters(), expected):
            torch.testing.assert_close(averaged, wanted)
        change(student)


def test_mean_teacher__warns_of_the_other_convention_as_mmengine_does(monkeypatch):
    messages = []
    monkeypatch.setattr(averaged_model, 'print_log', lambda message, **kwargs: messages.append(message))
    MeanTeacher(make_student(), 0.999)
    assert len(messages) == 1 and 'momentum in EMA is usually a small number' in messages[0]


def test_mean_teacher__copies_buffers():
    student = make_student()
    teacher = MeanTeacher(student, 0.01)
    for _ in range(3):
        change(student)
        teacher.update_parameters(student)
    assert torch.equal(teacher.module[1].running_mean, student[1].running_mean)
    assert teacher.module[1].num_batches_tracked == 3


def test_mean_teacher__needs_no_gradients():
    assert not any(parameter.requires_grad for parameter in MeanTeacher(make_student()).parameters())


@pytest.mark.parametrize('momentum', [-0.1, 0.0, 1.0, 'fast'])
def test_mean_teacher__momentum_out_of_range(momentum):
    with pytest.raises(ValueError, match=r'`teacher.momentum` to be a number in \(0, 1\), but got'):
        MeanTeacher(make_student(), momentum)


def test_evaluating__gives_every_module_its_mode_back():
    model = make_student().train()
    model[1].eval()  # as norm_eval does
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model] == [True, False, True]


def test_labeling__normalises_by_the_batch_and_changes_nothing():
    model = make_student().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    values = torch.randn(8, 3)
    with labeling(model), torch.no_grad():
        seen = model(values)
    torch.testing.assert_close(seen.mean(dim=0), torch.zeros(4), atol=1e-6, rtol=0)  # and no dropout
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model)


def test_labeling__a_frozen_norm_stays_frozen():
    model = make_student().train()
    model[1].eval()
    values = torch.randn(8, 3)
    with labeling(model), torch.no_grad():
        torch.testing.assert_close(model(values), model[:2](values))
    assert not model[1].training
