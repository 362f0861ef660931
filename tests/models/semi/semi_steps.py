"""Training steps of semi-supervised models, and the state of their student."""

import torch
from mmengine.optim import OptimWrapper

KINDS = ['cls', 'seg']


def train(model, batches, lr=0.05):
    optim_wrapper = OptimWrapper(torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr))
    return [model.train_step(batch, optim_wrapper) for batch in batches]


def student_state(model):
    state = model.state_dict()
    return {name[len('student.') :]: value for name, value in state.items() if name.startswith('student.')}


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
