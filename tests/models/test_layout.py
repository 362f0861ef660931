"""No module of the package changes its parameters or buffers once it is built.

Moving averages of a model, mmengine's EMAHook and MeanTeacher, pair the buffers of two copies by their position.
"""

import copy
import importlib.util
import io
import json
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from sar_mm.models.heads.factory import RefusedHead
from sar_mm.registry import MODELS

COUNTS = [50, 20, 9, 4, 1]
K = len(COUNTS)
SCOPE = dict(seg='mmseg', cls='mmpretrain')


# ----- All registered modules


def count_loss(name):
    def step():
        loss = MODELS.build(dict(type=name))
        yield loss
        loss.set_class_counts(COUNTS)
        loss.class_weight = [1.0, 2.0, 3.0, 4.0, 5.0]
        score = torch.randn(6, K, requires_grad=True)
        loss(score, torch.arange(6) % K).backward()

    return step


def sar_loss(name):
    def step():
        loss = MODELS.build(dict(type=name, separation_weight=1.0))
        yield loss
        if hasattr(loss, 'set_class_counts'):
            loss.set_class_counts(COUNTS)
        anchors, feature = torch.randn(K, 4), torch.randn(6, 4, requires_grad=True)
        losses = loss(torch.randn(K, K), anchors, feature, torch.arange(6) % K, anchors, torch.ones(()))
        sum(losses.values()).backward()

    return step


def feature_head(name):
    def step():
        head = MODELS.build(dict(type=name, num_classes=K, channels=4))
        yield head
        feature = torch.randn(6, 4, requires_grad=True)
        losses = head.loss(feature, torch.arange(6) % K, nn.Linear(4, K))
        sum(value for name, value in losses.items() if 'loss' in name).backward()

    return step


def fixed_classifier():
    head = MODELS.build(dict(type='ETFClsHead', num_classes=K, in_channels=4))
    yield head
    feature = torch.randn(6, 4, requires_grad=True)
    head.loss_module(head.fc(feature), torch.arange(6) % K).backward()


def backbone(**options):
    def step():
        model = MODELS.build(options)
        yield model
        model.init_weights()
        model(torch.randn(2, 3, 16, 16))[0].sum().backward()

    return step


def threshold(name):
    def step():
        module = MODELS.build(dict(type=name, num_classes=K))
        yield module
        module(torch.randn(6, K).softmax(dim=1), torch.ones(6, dtype=torch.bool))

    return step


def alignment():
    module = MODELS.build(dict(type='DistributionAlignment', num_classes=K, target='labeled'))
    yield module
    module(torch.randn(6, K).softmax(dim=1), torch.arange(6) % K, torch.ones(6, dtype=torch.bool))


def teacher():
    student = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), MODELS.build(dict(type='LDAMLoss')))
    average = MODELS.build(dict(type='MeanTeacher', model=student))
    yield average
    for _ in range(2):
        student[2].set_class_counts(COUNTS)
        student[2].class_weight = [1.0] * K
        student[1](student[0](torch.randn(4, 3)))
        average.update_parameters(student)
    assert torch.equal(average.module[1].running_mean, student[1].running_mean)


def semi(kind, loss):
    def step():
        tools = importlib.util.spec_from_file_location('semi_tools', Path(__file__).with_name('semi') / 'conftest.py')
        module = importlib.util.module_from_spec(tools)
        tools.loader.exec_module(module)
        options = dict(threshold=dict(type='SelfAdaptiveThreshold'), teacher=dict())
        options.update(distribution_alignment=dict(target='labeled'))
        model = module.make_semi.__wrapped__()(kind, sar=True, semi=options, num_classes=K)
        for head in (model.student.head,) if kind == 'cls' else (model.student.decode_head,):
            setattr(head, 'loss_module' if kind == 'cls' else 'loss_decode', loss)
        yield model
        loss.set_class_counts(COUNTS)
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        make_items = module.make_items.__wrapped__()
        for index in range(2):
            loss.class_weight = [1.0 + index] * K
            model.train_step(make_items(kind, 3, 4, num_classes=K, step=index), optimizer)

    return step


STEPS = dict(
    FixedThreshold=threshold('FixedThreshold'),
    SelfAdaptiveThreshold=threshold('SelfAdaptiveThreshold'),
    DistributionAlignment=alignment,
    MeanTeacher=teacher,
    ClassBalancedLoss=count_loss('ClassBalancedLoss'),
    LDAMLoss=count_loss('LDAMLoss'),
    LogitAdjustedLoss=count_loss('LogitAdjustedLoss'),
    SARLoss=sar_loss('SARLoss'),
    LogitAdjustedSARLoss=sar_loss('LogitAdjustedSARLoss'),
    SemanticAnchorHead=feature_head('SemanticAnchorHead'),
    PrototypeHead=feature_head('PrototypeHead'),
    CenterLossHead=feature_head('CenterLossHead'),
    SupervisedContrastiveHead=feature_head('SupervisedContrastiveHead'),
    BalancedFeaturesHead=feature_head('BalancedFeaturesHead'),
    ETFClsHead=fixed_classifier,
    DotRegressionLoss=fixed_classifier,
    SemiClassifier=semi('cls', MODELS.build(dict(type='LDAMLoss'))),
    SemiSegmentor=semi('seg', MODELS.build(dict(type='LogitAdjustedLoss'))),
    CIFARResNet=backbone(type='CIFARResNet', depth=8),
    WideResNet=backbone(type='WideResNet', depth=10, widen_factor=1),
)


def test_steps__cover_all_registered_modules():
    heads = {  # tests/models/heads has the same test of each of these
        name
        for name, kind in MODELS.module_dict.items()
        if issubclass(kind, RefusedHead) or kind.__module__.startswith('sar_mm.models.heads')
    }
    own = {name for name, kind in MODELS.module_dict.items() if kind.__module__.startswith('sar_mm.')}
    assert own - heads - STEPS.keys() == set()


@pytest.mark.parametrize('name', STEPS)
def test_layout__stays_from_construction_on(name, layout):
    if name not in MODELS.module_dict:
        pytest.skip('its toolbox is not installed')
    torch.manual_seed(0)
    steps = STEPS[name]()
    module = next(steps)
    before = layout(module)
    assert next(steps, None) is None  # runs what is behind the yield
    assert layout(module) == before
    assert layout(copy.deepcopy(module)) == before


@pytest.mark.parametrize('name', ['ClassBalancedLoss', 'LDAMLoss', 'LogitAdjustedLoss'])
def test_count_losses__are_copied_and_pickled_with_what_the_hooks_set(name):
    loss = MODELS.build(dict(type=name))
    loss.set_class_counts(COUNTS)
    loss.class_weight = [1.0, 2.0, 3.0, 4.0, 5.0]
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    score, target = torch.randn(6, K), torch.arange(6) % K
    for twin in (copy.deepcopy(loss), torch.load(file, weights_only=False)):
        assert torch.equal(twin(score, target), loss(score, target))
        twin.class_weight = None
        assert not torch.equal(twin(score, target), loss(score, target))
    assert loss.half()(score, target) == loss.float()(score, target)  # counts above 65504 would be infinite


# ----- Together with what averages models


@pytest.fixture
def train(tmp_path, monkeypatch, make_model, make_batch, make_seg_samples):
    """Train a tiny model with the hooks of long-tailed learning and a moving average; return the runner."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # mmengine 0.10.7 resumes with new PyTorch only so
    path = tmp_path / 'class_counts.json'
    path.write_text(json.dumps(dict(classes=list('abcde'), images=COUNTS, pixels=COUNTS)))

    def run(kind, sar, loss, average, max_iters=6, resume=False, name='run'):
        model = make_model(kind, sar)
        scope = SCOPE[kind]
        loss = loss if loss != 'CrossEntropyLoss' else f'{scope}.{loss}'
        setattr(
            model.head if kind == 'cls' else model.decode_head,
            'loss_module' if kind == 'cls' else 'loss_decode',
            MODELS.build(dict(type=loss)),
        )
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0  # mmengine's runner does not resume random states
        batches = []
        for step in range(6):
            inputs, samples = make_batch(kind, step)
            if kind == 'seg':  # mmseg's cross-entropy with class weights fails on ignored pixels
                samples = make_seg_samples(labels=range(K))
            batches.append(dict(inputs=inputs, data_samples=samples))
        runner = Runner(
            model=model,
            work_dir=str(tmp_path / name),
            train_dataloader=DataLoader(batches, collate_fn=lambda batches: batches[0]),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
            train_cfg=dict(by_epoch=False, max_iters=max_iters),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False), logger=None),
            custom_hooks=[
                dict(type='ClassCountsHook', file=str(path)),
                dict(type='DeferredReweightingHook', begin=3, by_epoch=False, beta=0.99, file=str(path)),
                dict(type='EMAHook', **average),
            ],
            default_scope=scope,
            randomness=dict(seed=0),
            resume=resume,
            experiment_name=f'{tmp_path.name}-{name}-{max_iters}',
        )
        runner.train()
        return runner

    return run


def averaged_model(runner):
    return next(hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model'))


@pytest.mark.parametrize(
    ('kind', 'sar', 'loss', 'average'),
    [  # all pairs
        ('seg', False, 'CrossEntropyLoss', dict()),
        ('cls', True, 'CrossEntropyLoss', dict(update_buffers=True)),
        ('seg', True, 'LogitAdjustedLoss', dict(update_buffers=True)),
        ('cls', False, 'LogitAdjustedLoss', dict()),
        ('seg', False, 'LDAMLoss', dict(update_buffers=True)),
        ('cls', True, 'LDAMLoss', dict()),
        ('seg', True, 'ClassBalancedLoss', dict()),
        ('cls', False, 'ClassBalancedLoss', dict(update_buffers=True)),
    ],
)
def test_moving_average__with_deferred_reweighting_and_resume(kind, sar, loss, average, train, layout):
    whole = train(kind, sar, loss, average, name='whole')
    averaged = averaged_model(whole).module
    assert layout(averaged) == layout(whole.model)
    student = dict(whole.model.named_buffers())
    if not average:  # mmengine copies the buffers: a shifted pair would hold another buffer's value
        assert all(torch.equal(buffer, student[key]) for key, buffer in averaged.named_buffers())
    assert all(value.isfinite().all() for value in averaged.state_dict().values())

    train(kind, sar, loss, average, max_iters=4)
    resumed = train(kind, sar, loss, average, resume=True)
    assert resumed.iter == 6
    for one, other in ((whole.model, resumed.model), (averaged, averaged_model(resumed).module)):
        for (key, value), found in zip(one.state_dict().items(), other.state_dict().values()):
            assert torch.equal(value, found), key
