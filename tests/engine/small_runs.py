"""A small model with data, metric and hook, for short trainings, and helpers that compare their checkpoints."""

import os
import shutil

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset


class Points(Dataset):
    metainfo = {}

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return dict(inputs=torch.randn(3) + index)


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, inputs, mode='tensor'):
        output = self.layers(torch.stack(inputs))
        return dict(loss=output.square().mean()) if mode == 'loss' else list(output)


class MeanOutput(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(sample.item() for sample in data_samples)

    def compute_metrics(self, results):
        return dict(output=sum(results) / len(results))


class Recorder(Hook):
    def __init__(self):
        self.validated = []

    def after_val_epoch(self, runner, metrics=None):
        self.validated.append((runner.iter, metrics['output']))


def read(runner, name):
    checkpoint = torch.load(f'{runner.work_dir}/{name}.pth', map_location='cpu', weights_only=False)
    return {key: checkpoint[key] for key in ('state_dict', 'optimizer', 'param_schedulers')}


def same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def start_from(runner, folder, name, whole):
    """Copy a checkpoint of a whole run, as if the run had been killed right after it had saved it."""
    os.makedirs(folder)
    shutil.copy(f'{whole.work_dir}/{name}.pth', folder)
