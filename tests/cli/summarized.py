"""A training of a tiny model, and the summary of it."""

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset


class Points(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.ones(2))


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        output = self.layer(torch.stack(inputs))
        return dict(loss=output.square().mean()) if mode == 'loss' else list(output)


class Falling(BaseMetric):
    """A score that falls with every validation: the first is the best."""

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.count = getattr(self, 'count', 0) + 1
        return dict(acc=90.0 - self.count, mIoU=1.5)


class Gate(Model):
    """A model whose heads log gates, which are open in given steps."""

    def __init__(self, **is_open):
        super().__init__()
        self.is_open = is_open

    def forward(self, inputs, mode='tensor'):
        output = super().forward(inputs, mode)
        if mode == 'loss':
            output.update({f'{name}anchor_gate': torch.tensor(steps.pop(0)) for name, steps in self.is_open.items()})
        return output


class Stop(Hook):
    """Raises an error at the end of a step, or before the first one (0)."""

    def __init__(self, at, error):
        self.at, self.error = at, error

    def before_train(self, runner):
        if self.at == 0:
            raise self.error

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.at:
            raise self.error
