from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from PIL import Image
from torch import nn

from sar_mm.checks import UsageError
from sar_mm.engine.checks import (
    check_class_weights,
    check_classes,
    check_load_from,
    check_optimizer,
    check_run,
    check_sync_bn,
    check_test,
    classifying_heads,
)
from sar_mm.engine.runner import ResumableRunner

THREE = dict(classes=('a', 'b', 'c'))


def head(kind='FCNHead', loss=None, **options):
    """Return a model with one decode head that has these attributes."""
    module = type(kind, (nn.Module,), {})()
    for name, value in options.items():
        setattr(module, name, value)
    if loss is not None:
        module.loss_decode = loss
    model = nn.Module()
    model.decode_head = module
    return model


def data(metainfo, **options):
    return SimpleNamespace(metainfo=metainfo, **options)


@pytest.mark.parametrize(
    'model, dataset',
    [
        (head(num_classes=3), data(THREE)),
        (head(num_classes=19), data(dict(classes=None))),  # names no classes
        (head(num_classes=19), data({})),
        (head(num_classes=19), SimpleNamespace()),
        (head(num_classes=1, out_channels=1), data(dict(classes=('background', 'vessel')))),
        (head(num_classes=2, out_channels=1), data(dict(classes=('vessel',)))),
        (head(num_classes=2), data(THREE, reduce_zero_label=True)),
        (head('STDCHead', num_classes=2), data(THREE)),  # edges
        (head('VPDDepthHead', num_classes=40), data(THREE)),
        (head('MultiTaskHead'), data(THREE)),  # its sub-heads have classes
    ],
)
def test_check_classes__what_fits(model, dataset):
    check_classes(list(classifying_heads(model)), dataset, 'train_dataloader.dataset')


def test_check_classes__what_does_not():
    heads = list(classifying_heads(head(num_classes=4)))
    message = r'^model.decode_head.num_classes=4, but .* train_dataloader.dataset has 3 classes \(a, b, c\): set num_'
    with pytest.raises(UsageError, match=message):
        check_classes(heads, data(THREE), 'train_dataloader.dataset')


def test_classifying_heads__of_cascades_and_of_students():
    cascade = nn.Module()
    cascade.decode_head = nn.ModuleList([head(num_classes=3).decode_head, head(num_classes=3).decode_head])
    cascade.auxiliary_head = None
    assert [each.place for each in classifying_heads(cascade)] == ['model.decode_head.0', 'model.decode_head.1']
    semi = nn.Module()
    semi.student = head(num_classes=3)
    assert [each.place for each in classifying_heads(semi)] == ['model.segmentor.decode_head']


def test_check_class_weights__of_one_of_several_losses():
    loss = nn.ModuleList([nn.CrossEntropyLoss(), nn.Identity()])
    loss[1].class_weight = [1.0, 2.0]
    with pytest.raises(
        UsageError, match=r'model.decode_head.loss_decode.1.class_weight has 2 entries, but .*classes=3'
    ):
        check_class_weights(list(classifying_heads(head(num_classes=3, loss=loss))))
    loss[1].class_weight = [1.0, 2.0, 3.0]
    check_class_weights(list(classifying_heads(head(num_classes=3, loss=loss))))


def test_check_sync_bn__on_a_cpu():
    model = nn.Module()
    model.backbone = nn.Sequential(nn.SyncBatchNorm(4))
    with pytest.raises(
        UsageError, match=r"model.backbone.0 is of type SyncBN, .*set norm_cfg=dict\(type='BN'\) in model.b"
    ):
        check_sync_bn(model)
    check_sync_bn(nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    'wrapper, message',
    [
        (dict(optimizer='AdamW'), r"optim_wrapper.optimizer='AdamW' is no dict, such as dict\(type='SGD', lr=0.01\)"),
        (dict(optimizer=dict(type='AdmW')), r"type='AdmW' is not registered; did you mean AdamW\?"),
    ],
)
def test_check_optimizer__what_mmengine_does_not_name(wrapper, message):
    with pytest.raises(UsageError, match=message):
        check_optimizer(wrapper)
    check_optimizer(dict(wrapper, constructor='Mine'))  # which may read it in its own way


def test_check_optimizer__what_is_valid():
    for optimizer in (dict(type='SGD', lr=0.1), dict(type=torch.optim.SGD), dict(lr=0.1)):
        check_optimizer(dict(type='AmpOptimWrapper', optimizer=optimizer))
    check_optimizer(dict(generator=dict(optimizer='SGD'), constructor='Mine'))
    check_optimizer(None)


@pytest.fixture
def make_runner(tmp_path):
    """Build the runner of a classifier on the folders car, cat and plane, with these settings."""
    pytest.importorskip('mmpretrain.datasets')
    for folder in ('car', 'cat', 'plane'):
        (tmp_path / 'images' / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / 'images' / folder / '0.png')
    backbone = dict(type='ResNet_CIFAR', depth=18, num_stages=1, out_indices=(0,), strides=(1,), dilations=(1,))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    dataset = dict(type='CustomDataset', data_prefix=str(tmp_path / 'images'), pipeline=pipeline)
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=dataset)
    evaluator = dict(type='Accuracy', topk=(1, 3))
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(tmp_path / 'work'),
            model=dict(
                type='ImageClassifier',
                backbone=backbone,
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='SARLinearClsHead', num_classes=3, in_channels=64),
            ),
            train_dataloader=loader,
            val_dataloader=loader,
            test_dataloader=loader,
            train_cfg=dict(by_epoch=False, max_iters=1),
            val_cfg=dict(),
            test_cfg=dict(),
            val_evaluator=evaluator,
            test_evaluator=evaluator,
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        )
    ).to_dict()
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict={}, meta={}), weights)

    def make(**settings):
        own = Config(cfg)
        own.merge_from_dict(settings)
        return ResumableRunner.from_cfg(own), str(weights)

    return make


ORDER = ['plane', 'car', 'cat']


@pytest.mark.parametrize(
    'settings, message',
    [
        (
            {'train_dataloader.dataset.classes': ORDER},
            r"^train_dataloader.dataset: .*set classes=\['car', 'cat', 'plane'",
        ),
        ({'val_dataloader.dataset.classes': ORDER}, r'^val_dataloader.dataset: the classes are in another order than'),
        ({'val_evaluator.topk': (1, 5)}, r'^val_evaluator.topk=\(1, 5\): there is no top-5 accuracy of 3 classes'),
        ({'test_evaluator.topk': (1, 5)}, r'^test_evaluator.topk=\(1, 5\): there is no top-5 accuracy of 3 classes'),
        (
            {'model.data_preprocessor': dict(num_classes=1000, to_onehot=True)},
            r'^data_preprocessor.num_classes=1000, but model.head.num_classes=3',
        ),
    ],
)
def test_check_run__classes_of_data_metrics_and_preprocessor(make_runner, settings, message):
    with pytest.raises(UsageError, match=message):
        check_run(make_runner(**settings)[0])


@pytest.mark.parametrize(
    'settings, message',
    [
        (
            {'test_dataloader.dataset.classes': ORDER},
            r"^test_dataloader.dataset: .*set classes=\['car', 'cat', 'plane'",
        ),
        ({'test_evaluator.topk': (1, 5)}, r'^test_evaluator.topk=\(1, 5\): there is no top-5 accuracy of 3 classes'),
    ],
)
def test_check_test__classes_of_data_and_metrics(make_runner, settings, message):
    with pytest.raises(UsageError, match=message):
        check_test(*make_runner(**settings))


def test_check_run_and_check_test__what_fits(make_runner):
    for settings in (
        {},
        {f'{part}_dataloader.dataset.classes': ['vehicle', 'animal', 'aircraft'] for part in ('train', 'val', 'test')},
        {'check_classes': False, 'train_dataloader.dataset.classes': ORDER, 'test_dataloader.dataset.classes': ORDER},
    ):
        runner, weights = make_runner(**settings)
        check_run(runner)
        check_test(runner, weights)


@pytest.mark.parametrize('path', ['~/x.pth', '~/folder', 'https://somewhere/x.pth', None])
def test_check_load_from__what_can_be_loaded(path, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'x.pth').write_bytes(b'')
    (tmp_path / 'folder').mkdir()  # a sharded checkpoint
    check_load_from(SimpleNamespace(_load_from=path))


def test_check_load_from__names_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    with pytest.raises(UsageError, match=r"load_from='~/gone.pth': there is no such checkpoint"):
        check_load_from(SimpleNamespace(_load_from='~/gone.pth'))


def test_load_from__a_path_from_home_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(dict(state_dict=nn.Linear(2, 2).state_dict(), meta={}), tmp_path / 'x.pth')
    assert set(CheckpointLoader.load_checkpoint('~/x.pth')['state_dict']) == {'weight', 'bias'}
