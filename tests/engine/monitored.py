"""A model with anchors whose gate is open in given steps, its data, and what records a training of it."""

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.visualization import TensorboardVisBackend
from torch import nn
from torch.utils.data import Dataset

from sar_mm.models import SemanticAnchorHead

K, C, CLASSES = 3, 4, ('cat', 'dog', 'owl')


class Points(Dataset):
    metainfo = dict(classes=CLASSES)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.arange(C).cos() + 0.1 * index, labels=torch.tensor(index % K))


class Head(nn.Module):
    """A head with a task loss and anchors; `is_open` says in which steps its gate is open."""

    def __init__(self, is_open, **options):
        super().__init__()
        self.fc = nn.Linear(C, K)
        self.is_open, self.steps = is_open, 0
        self.anchor_head = SemanticAnchorHead(K, C, **options)

    @property
    def classifier_layers(self):
        return [self.fc]

    def classify(self, anchors):
        rows = torch.arange(K) if self.is_open[self.steps - 1] else torch.tensor([0, 0, 2])
        return 10 * torch.eye(K)[rows] + 0 * self.fc(anchors)

    def forward(self, feature, labels):
        self.steps += 1
        losses = self.anchor_head.loss(feature, labels, self.classify)
        return dict(loss=F.cross_entropy(self.fc(feature), labels), **losses)


class Model(BaseModel):
    """Heads whose losses have a prefix, as in segmentation, or none, as in classification."""

    def __init__(self, heads, unsup=False):
        super().__init__()
        self.heads = nn.ModuleDict({name: head for name, head in heads.items() if name})
        self.head = heads.get('')
        self.unsup = unsup

    def forward(self, inputs, labels=None, mode='tensor'):
        inputs, losses = torch.stack(inputs), {}
        for name, head in [*self.heads.items(), ('', self.head)]:
            if head is not None:
                prefix = f'{name}.' if name else ''
                losses.update({f'{prefix}{key}': value for key, value in head(inputs, torch.stack(labels)).items()})
        return dict(losses, **({'loss_unsup': inputs.square().mean()} if self.unsup else {}))


class Recorder(Hook):
    def __init__(self):
        self.outputs = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.outputs.append({name: float(value) for name, value in outputs.items()})


class Board(TensorboardVisBackend):
    """A user's own TensorBoard, under a name of its own."""

    written = []
    experiment = None

    def _init_env(self):
        pass

    def add_config(self, config, **kwargs):
        pass

    def add_scalars(self, scalar_dict, step=0, file_path=None):
        self.written.append((step, dict(scalar_dict)))


def one_head(is_open, **options):
    return Model({'': Head(is_open, **options)})
