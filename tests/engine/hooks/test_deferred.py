import json
from collections import OrderedDict

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

import sar_mm.engine.hooks  # noqa: F401
from sar_mm.ops import effective_number_weights
from sar_mm.registry import DATASETS, HOOKS


class Images(BaseDataset):
    METAINFO = dict(classes=('a', 'b', 'c'))

    def load_data_list(self):
        return [dict(gt_label=label, inputs=torch.ones(1)) for label in [0] * 5 + [1] * 2 + [2]]

    def get_cat_ids(self, idx):
        return [self.get_data_info(idx)['gt_label']]


class WeightedLoss(nn.Module):
    def __init__(self, class_weight=None):
        super().__init__()
        self.class_weight = class_weight


class Head(nn.Module):
    def __init__(self, num_classes, loss):
        super().__init__()
        self.num_classes = num_classes
        self.loss = loss


class Model(BaseModel):
    def __init__(self, num_classes=3, loss=None):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.head = Head(num_classes, WeightedLoss([1, 2, 3]) if loss is None else loss)
        self.auxiliary_head = Head(num_classes, WeightedLoss() if loss is None else loss)

    def forward(self, inputs, mode='tensor', **kwargs):
        return dict(loss=self.layer(inputs).sum())


class Recorder(Hook):
    """What holds in each step."""

    priority = 'LOWEST'

    def __init__(self):
        self.steps = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        weights = [
            getattr(head.loss, 'class_weight', None) for head in (runner.model.head, runner.model.auxiliary_head)
        ]
        power = getattr(runner.train_dataloader.sampler, 'power', None)
        labels = data_batch['gt_label'].tolist()
        self.steps.append((runner.epoch, runner.iter, weights, power, labels))


@pytest.fixture
def make_runner(tmp_path, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())  # a Runner changes the scope of all tests
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # mmengine 0.10.7 resumes with new PyTorch only so
    DATASETS.register_module(name='DeferredImages', force=True, module=Images)

    def make(hook, max_epochs=4, by_epoch=True, sampler=None, model=None, resume=False, name='run'):
        sampler = sampler or dict(type='DefaultSampler', shuffle=False)
        runner = Runner(
            model=model or Model(),
            work_dir=str(tmp_path / name),
            train_dataloader=dict(
                dataset=dict(type='DeferredImages'),
                sampler=sampler,
                batch_size=4,
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=max_epochs)
            if by_epoch
            else dict(by_epoch=False, max_iters=2 * max_epochs),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            custom_hooks=[hook],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch)),
            randomness=dict(seed=0),
            resume=resume,
            experiment_name=f'{tmp_path.name}-{name}-{max_epochs}',
        )
        runner.recorder = Recorder()
        runner.register_hook(runner.recorder)
        return runner

    return make


def scaled_weights(counts, beta):
    """Effective-number weights that average 1 over the images."""
    weights = effective_number_weights(torch.tensor(counts, dtype=torch.float64), beta).tolist()
    total = 0.0
    for count, weight in zip(counts, weights):
        total += count * weight
    return [weight / (total / sum(counts)) for weight in weights]


WEIGHTS = scaled_weights([5, 2, 1], 0.9)


def reweighting(**options):
    return dict(type='DeferredReweightingHook', **{'begin': 2, 'beta': 0.9, **options})


def resampling(**options):
    return dict(type='DeferredResamplingHook', **{'begin': 2, **options})


POWER_SAMPLER = dict(type='ClassPowerSampler', power=1.0, seed=0)


def test_deferred_reweighting__begins_at_its_epoch(make_runner):
    runner = make_runner(reweighting())
    runner.train()
    assert [(epoch, weights) for epoch, _, weights, _, _ in runner.recorder.steps] == [
        (epoch, [WEIGHTS, WEIGHTS] if epoch >= 2 else [[1, 2, 3], None]) for epoch in (0, 0, 1, 1, 2, 2, 3, 3)
    ]
    assert sum(n * weight for n, weight in zip([5, 2, 1], WEIGHTS)) == pytest.approx(8)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_deferred_reweighting__begins_at_its_iteration(make_runner, monkeypatch, by_epoch):
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # mmengine waits when a loader starts again
    runner = make_runner(reweighting(begin=3, by_epoch=False), by_epoch=by_epoch)
    runner.train()
    found = [(iteration, weights[1]) for _, iteration, weights, _, _ in runner.recorder.steps]
    assert found == [(iteration, WEIGHTS if iteration >= 3 else None) for iteration in range(8)]


@pytest.mark.parametrize('interrupted_after', [1, 2])
def test_deferred_reweighting__resumes(make_runner, interrupted_after):
    make_runner(reweighting(), max_epochs=interrupted_after).train()
    runner = make_runner(reweighting(), resume=True)
    runner.train()
    found = [(epoch, weights[1]) for epoch, _, weights, _, _ in runner.recorder.steps]
    epochs = [epoch for epoch in range(interrupted_after, 4) for _ in range(2)]
    assert found == [(epoch, WEIGHTS if epoch >= 2 else None) for epoch in epochs]


def test_deferred_reweighting__from_a_file(make_runner, tmp_path):
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps(dict(classes=['a', 'b', 'c'], images=[9, 4, 2], pixels=[90, 40, 20])))
    for kind, counts in (('pixels', [90, 40, 20]), ('images', [9, 4, 2])):
        model = Model()
        make_runner(reweighting(begin=0, file=str(path), kind=kind), max_epochs=1, model=model, name=kind).train()
        assert model.head.loss.class_weight == scaled_weights(counts, 0.9)


def test_deferred_reweighting__replaces_the_values_of_a_buffer(make_runner):
    loss = nn.Module()
    loss.register_buffer('class_weight', torch.ones(3))
    buffer = loss.class_weight
    make_runner(reweighting(begin=0), max_epochs=1, model=Model(loss=loss)).train()
    assert loss.class_weight is buffer and buffer.tolist() == pytest.approx(WEIGHTS)


@pytest.mark.parametrize('toolbox', ['mmpretrain', 'mmseg'])
def test_deferred_reweighting__reaches_the_toolboxes(make_runner, toolbox):
    losses = pytest.importorskip(f'{toolbox}.models').losses
    loss = losses.CrossEntropyLoss()
    score, label = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 0])
    plain = loss(score, label)
    make_runner(reweighting(begin=0), max_epochs=1, model=Model(loss=loss)).train()
    weighted = nn.functional.cross_entropy(score, label, torch.tensor(WEIGHTS), reduction='none')
    # mmseg divides by the weights, mmpretrain by the images.
    expected = weighted.sum() / (len(label) if toolbox == 'mmpretrain' else torch.tensor(WEIGHTS)[label].sum())
    assert loss(score, label).item() == pytest.approx(expected.item(), rel=1e-5)
    assert plain.item() != pytest.approx(expected.item(), rel=1e-3)


def test_deferred_reweighting__errors_come_at_the_start(make_runner, tmp_path):
    def message(match, **options):
        runner = make_runner(**options)
        with pytest.raises(ValueError, match=match):
            runner.train()
        assert runner.recorder.steps == []

    message('no module of the model has a class_weight', hook=reweighting(), model=Model(loss=nn.Identity()))
    message('Head has 4 classes, but there are 3 class counts', hook=reweighting(), model=Model(num_classes=4))
    message('begins at an epoch, but an IterBasedTrainLoop has none', hook=reweighting(), by_epoch=False)
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps(dict(classes=['a', 'b'], pixels=[90, 40])))
    message('Head has 3 classes, but there are 2 class counts', hook=reweighting(file=str(path)))


@pytest.mark.parametrize(
    ('options', 'name'),
    [(dict(begin=-1), 'begin'), (dict(begin=0.5), 'begin'), (dict(beta=1.0), 'beta'), (dict(kind='boxes'), 'kind')],
)
def test_deferred_reweighting__bad_arguments(options, name):
    with pytest.raises(ValueError, match=f'Expected argument `{name}`'):
        HOOKS.build(reweighting(**options))


def test_deferred_resampling__begins_at_its_epoch(make_runner):
    runner = make_runner(resampling(power=0.5), sampler=POWER_SAMPLER)
    runner.train()
    found = [(epoch, power) for epoch, _, _, power, _ in runner.recorder.steps]
    assert found == [(epoch, 0.5 if epoch >= 2 else 1.0) for epoch in (0, 0, 1, 1, 2, 2, 3, 3)]


@pytest.mark.parametrize('interrupted_after', [1, 3])
def test_deferred_resampling__resumes_with_the_same_images(make_runner, interrupted_after):
    whole = make_runner(resampling(), sampler=POWER_SAMPLER, name='whole')
    whole.train()
    make_runner(resampling(), sampler=POWER_SAMPLER, max_epochs=interrupted_after).train()
    resumed = make_runner(resampling(), sampler=POWER_SAMPLER, resume=True)
    resumed.train()
    assert resumed.recorder.steps == whole.recorder.steps[2 * interrupted_after :]


def test_deferred_resampling__errors_come_at_the_start(make_runner):
    with pytest.raises(ValueError, match='train_dataloader.sampler` to be a ClassPowerSampler.*DefaultSampler'):
        make_runner(resampling()).train()
    with pytest.raises(ValueError, match='DeferredResamplingHook begins at an epoch'):
        make_runner(resampling(), sampler=POWER_SAMPLER, by_epoch=False).train()


@pytest.mark.parametrize(('options', 'name'), [(dict(begin=-1), 'begin'), (dict(power='half'), 'power')])
def test_deferred_resampling__bad_arguments(options, name):
    with pytest.raises(ValueError, match=f'Expected argument `{name}`'):
        HOOKS.build(resampling(**options))
