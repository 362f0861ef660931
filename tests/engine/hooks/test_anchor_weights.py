import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from sar_mm.engine.hooks import AnchorWeightHook
from sar_mm.models.losses import SARLoss


class Model(BaseModel):
    def __init__(self, with_loss=True):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        if with_loss:
            self.loss_module = SARLoss(pull_weight=0.2)

    def forward(self, inputs, mode='tensor', **kwargs):
        return dict(loss=self.layer(torch.stack(inputs)).sum())


class Recorder(Hook):
    priority = 'LOWEST'

    def __init__(self):
        self.weights = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        loss = runner.model.loss_module
        self.weights.append((loss.anchor_weight, loss.pull_weight))


def train(work_dir, hook, model=None, resume=False, max_iters=6):
    recorder = Recorder()
    runner = Runner(
        model=model or Model(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=1, dataset=[dict(inputs=torch.ones(1))] * 8, sampler=dict(type='InfiniteSampler')
        ),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=3, by_epoch=False)),
        custom_hooks=[hook, recorder],
        resume=resume,
        experiment_name=work_dir.name,
        default_scope='mmengine',
        log_level='WARNING',
    )
    runner.train()
    return recorder.weights


def test_anchor_weight_hook__moves_the_weights_linearly(tmp_path):
    weights = train(tmp_path, AnchorWeightHook(begin=1, end=5, pull_weight=1.0))
    assert [anchor for anchor, _ in weights] == [1.0] * 6
    assert [pull for _, pull in weights] == pytest.approx([0.2, 0.2, 0.4, 0.6, 0.8, 1.0])
    weights = train(tmp_path / 'both', AnchorWeightHook(end=2, anchor_weight=0, pull_weight=0))
    assert weights == [(1.0, 0.2), (0.5, 0.1)] + [(0, 0)] * 4


def test_anchor_weight_hook__a_resumed_run_continues(tmp_path):
    options = dict(begin=1, end=5, pull_weight=1.0)
    whole = train(tmp_path / 'whole', AnchorWeightHook(**options))
    first = train(tmp_path / 'parts', AnchorWeightHook(**options), max_iters=3)
    assert first + train(tmp_path / 'parts', AnchorWeightHook(**options), resume=True) == whole


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(end=3, begin=3, pull_weight=1), 'Expected argument `end` to be an integer of at least 4, but got 3'),
        (dict(end=3, begin=-1, pull_weight=1), '`begin` to be an integer of at least 0, but got -1'),
        (dict(end=3, pull_weight=-1), '`pull_weight` to be a finite number of at least 0, but got -1'),
        (dict(end=3), '`pull_weight` to be a weight here or for anchor_weight, but got None'),
    ],
)
def test_anchor_weight_hook__refuses_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        AnchorWeightHook(**options)


def test_anchor_weight_hook__needs_a_sar_loss(tmp_path):
    with pytest.raises(ValueError, match="to be a model with a SARLoss for AnchorWeightHook, but got 'Model'"):
        train(tmp_path, AnchorWeightHook(end=3, pull_weight=1), model=Model(with_loss=False))
