import json
import logging
from collections import OrderedDict

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

import sar_mm.engine.hooks  # noqa: F401
from sar_mm.evaluation import GroupAccuracy
from sar_mm.registry import DATASETS, HOOKS


class Images(BaseDataset):
    METAINFO = dict(classes=('a', 'b', 'c'))
    built = 0

    def __init__(self, labels, **kwargs):
        Images.built += 1
        self.labels = labels
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self):
        return [dict(gt_label=label, inputs=torch.ones(1)) for label in self.labels]

    def get_cat_ids(self, idx):
        return [self.get_data_info(idx)['gt_label']]


class LabelMaps(BaseDataset):
    METAINFO = dict(classes=('road', 'sky', 'tree'))

    def load_data_list(self):
        return [dict(inputs=torch.ones(1))]


class Counts:
    """Takes counts, only as many as there are classes."""

    counts = None

    def set_class_counts(self, counts):
        if len(counts) != 3:
            raise ValueError(f'3 classes, but {len(counts)} counts')
        self.counts = counts


class CountLoss(Counts, nn.Module):
    pass


class Model(BaseModel):
    def __init__(self, loss):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.head = nn.Sequential(loss)

    def forward(self, inputs, mode='tensor', **kwargs):
        value = self.layer(torch.stack(inputs) if isinstance(inputs, list) else inputs)
        return dict(loss=value.sum()) if mode == 'loss' else [dict()] * len(value)


class CountMetric(Counts, BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [1]

    def compute_metrics(self, results):
        return dict(first=self.counts[0] if self.counts else -1)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())  # a Runner changes the scope of all tests
    for module in (Images, LabelMaps):
        DATASETS.register_module(name=f'CountsHook{module.__name__}', force=True, module=module)
    Images.built = 0


@pytest.fixture
def make_runner(tmp_path):
    """A Runner with the hook; ``train`` is the config of the training data."""

    def make(hook=None, train=None, loss=None, metric=None, wrap=False, **options):
        def loader(dataset):
            return dict(dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2)

        model = Model(CountLoss() if loss is None else loss)
        if wrap:

            class Wrapped(nn.Module):
                def __init__(self, module):
                    super().__init__()
                    self.module = module
                    self.train_step, self.val_step = module.train_step, module.val_step

            model = Wrapped(model)
        val = dict(type='CountsHookImages', labels=[2, 2])
        config = dict(
            model=model,
            work_dir=str(tmp_path),
            val_dataloader=loader(val),
            val_cfg=dict(),
            val_evaluator=[CountMetric() if metric is None else metric],
            test_dataloader=loader(val),
            test_cfg=dict(),
            test_evaluator=[CountMetric()],
            custom_hooks=[dict(type='ClassCountsHook', **(hook or {}))],
            default_hooks=dict(checkpoint=None),
            experiment_name=tmp_path.name,
        )
        train = dict(type='CountsHookImages', labels=[0, 0, 1, 0]) if train is None else train
        if train:
            config.update(
                train_dataloader=loader(train),
                train_cfg=dict(by_epoch=True, max_epochs=1),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            )
        return Runner(**{**config, **options})

    return make


def losses(runner):
    return [module for module in runner.model.modules() if isinstance(module, CountLoss)]


def metrics(runner):
    return runner.val_loop.evaluator.metrics + runner.test_loop.evaluator.metrics


@pytest.mark.parametrize('wrap', [False, True])
def test_class_counts_hook__in_training(make_runner, wrap):
    runner = make_runner(wrap=wrap)
    runner.call_hook = _only_before_run(runner)
    with pytest.raises(_Done):
        runner.train()
    assert [loss.counts for loss in losses(runner)] == [[3, 1, 0]]
    assert [metric.counts for metric in metrics(runner)] == [[3, 1, 0], None]  # the test loop is not built yet
    assert Images.built == 2 + 1  # training, validation, and the test loop that this test built


class _Done(Exception):
    pass


def _only_before_run(runner):
    call = runner.call_hook

    def stop(name, **kwargs):
        call(name, **kwargs)
        if name == 'before_run':
            raise _Done

    return stop


def test_class_counts_hook__before_the_first_step_of_a_whole_run(make_runner):
    runner = make_runner()
    runner.train()
    assert runner.test() == dict(first=3)
    assert [metric.counts for metric in metrics(runner)] == [[3, 1, 0], [3, 1, 0]]


def test_class_counts_hook__in_a_test_builds_no_training_loop(make_runner):
    runner = make_runner()
    assert runner.test() == dict(first=3)
    assert isinstance(runner._train_loop, dict) and isinstance(runner._val_loop, dict)
    assert losses(runner)[0].counts == [3, 1, 0]
    assert Images.built == 2  # test and training


def test_class_counts_hook__in_validation(make_runner):
    assert make_runner().val() == dict(first=3)


def test_class_counts_hook__of_a_long_tailed_view(make_runner):
    data = dict(type='CountsHookImages', labels=[0, 1, 2] * 4)
    runner = make_runner(train=dict(type='LongTailedDataset', dataset=data, imbalance_factor=4))
    assert runner.test() == dict(first=4)
    assert losses(runner)[0].counts == [4, 2, 1]


@pytest.mark.parametrize(
    ('wrapper', 'seen'),
    [
        (dict(type='RepeatDataset', times=40), [4, 2, 1]),
        # Frequencies 4/7, 2/7 and 1/7: repeated 1, ceil(1.32) and ceil(1.87) times.
        (dict(type='ClassBalancedDataset', oversample_thr=0.5), [4, 4, 2]),
        (dict(type='RepeatDataset', times=2, dataset=dict(type='ClassBalancedDataset', oversample_thr=0.5)), [4, 4, 2]),
    ],
    ids=['repeated', 'balanced', 'both'],
)
def test_class_counts_hook__losses_get_what_is_seen_and_metrics_distinct_images(make_runner, wrapper, seen):
    data = dict(type='CountsHookImages', labels=[0, 1, 2, 0, 0, 1, 0])
    train = {**wrapper, 'dataset': {**wrapper['dataset'], 'dataset': data} if 'dataset' in wrapper else data}
    runner = make_runner(train=train, test_evaluator=[CountMetric(), GroupAccuracy(many=3, few=2)])
    metric = runner.test_loop.evaluator.metrics[1]
    runner.call_hook('before_run')
    assert losses(runner)[0].counts == seen
    assert runner.test_loop.evaluator.metrics[0].counts == [4, 2, 1]
    # Recalls of 100, 50 and 0 %: no class changes its group.
    metric.results = [(0, 0), (1, 1), (0, 1), (1, 2)]
    found = metric.compute_metrics(metric.results)
    assert {name: found[name] for name in ('many', 'medium', 'few')} == dict(many=100, medium=50, few=0)


def test_class_counts_hook__from_a_file(make_runner, tmp_path):
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps(dict(classes=['a', 'b', 'c'], images=[3, 2, 1], pixels=[30, 20, 10])))
    runner = make_runner(dict(file=str(path)), train=dict(type='CountsHookLabelMaps'))
    assert runner.test() == dict(first=30)
    runner = make_runner(dict(file=str(path), kind='images'), train=False)  # no training data needed
    assert runner.test() == dict(first=3)


def test_class_counts_hook__warns_where_nobody_asks(make_runner, caplog):
    runner = make_runner(train=dict(type='CountsHookLabelMaps'), loss=nn.Identity(), test_evaluator=[_plain_metric()])
    runner.logger.addHandler(caplog.handler)
    runner.test()
    assert any('no module of the model and no metric asks' in record.message for record in caplog.records)
    assert all(record.levelno <= logging.WARNING for record in caplog.records)


def _plain_metric():
    class Plain(BaseMetric):
        def process(self, data_batch, data_samples):
            self.results += [1]

        def compute_metrics(self, results):
            return dict()

    return Plain()


def test_class_counts_hook__segmentation_needs_a_file(make_runner):
    runner = make_runner(train=dict(type='CountsHookLabelMaps'))
    with pytest.raises(ValueError, match='no labels of images to count.*class_counts.py CONFIG'):
        runner.train()


def test_class_counts_hook__needs_training_data_or_a_file(make_runner):
    with pytest.raises(ValueError, match='need a train_dataloader in the config, or a file'):
        make_runner(train=False).test()


def test_class_counts_hook__wrong_number_of_classes_is_an_error(make_runner, tmp_path):
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps(dict(classes=['a', 'b'], pixels=[30, 20])))
    with pytest.raises(ValueError, match='3 classes, but 2 counts'):
        make_runner(dict(file=str(path))).train()


def test_class_counts_hook__bad_kind():
    with pytest.raises(ValueError, match=r"Expected argument `kind` to be one of \('pixels', 'images'\)"):
        HOOKS.build(dict(type='ClassCountsHook', kind='boxes'))
