"""Trainings of zero steps."""

import re
from itertools import cycle

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, Dataset, IterableDataset, Sampler

from sar_mm.checks import UsageError
from sar_mm.engine.checks import check_run
from sar_mm.engine.runner import ResumableRunner

EPOCHS, ITERATIONS = dict(by_epoch=True, max_epochs=2), dict(by_epoch=False, max_iters=2)
NUMBER = iter(range(1000))


class Images(Dataset):
    def __init__(self, number):
        self.number = number

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        return torch.tensor([float(index)])


class Stream(IterableDataset):
    def __iter__(self):
        return iter([torch.zeros(1)] * 8)


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, *inputs, mode='tensor'):
        return dict(loss=self.layer(torch.stack([torch.as_tensor(each).float() for each in inputs])).mean())


class Own(Sampler):
    """A user's sampler without end, whose length is that of the data set, as mmengine's."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __iter__(self):
        return cycle(range(len(self.dataset)))


@pytest.fixture
def make(tmp_path):
    def make(images, loop=EPOCHS, sampler=None, kind=ResumableRunner, **loader):
        sampler = dict(type='DefaultSampler', shuffle=True) if sampler is None else sampler
        if isinstance(sampler, type):
            sampler = sampler(images)
        loader = dict(dataset=images, sampler=sampler, **{'batch_size': 4, **loader})
        return kind(
            model=Model(),
            work_dir=str(tmp_path),
            train_dataloader=loader,
            train_cfg=dict(loop),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            experiment_name=f'batches{next(NUMBER)}',
        )

    return make


def train(runner):
    """Do what tools/train.py does."""
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    check_run(runner)
    runner.train()
    return runner.iter


@pytest.mark.parametrize('kind', [ResumableRunner, Runner])
@pytest.mark.parametrize('loop', [EPOCHS, ITERATIONS], ids=['epochs', 'iterations'])
def test_check_batches__fewer_images_than_a_batch(make, loop, kind):
    words = 'train_dataloader gives no batch with batch_size=4 and drop_last=True: the Images of '
    words += 'train_dataloader.dataset has 3 images; set drop_last=False, or batch_size=3 or less, or give it more'
    with pytest.raises(UsageError, match=re.escape(words)):
        train(make(Images(3), loop, kind=kind, drop_last=True))
    # What the message names as remedies.
    assert train(make(Images(3), loop, kind=kind, drop_last=False)) == 2
    assert train(make(Images(3), loop, kind=kind, drop_last=True, batch_size=3)) == 2
    assert train(make(Images(4), loop, kind=kind, drop_last=True)) == 2


@pytest.mark.parametrize('number, share', [(5, 3), (1, 0)])
def test_check_batches__fewer_images_than_a_batch_in_this_process(make, number, share, monkeypatch):
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (1, 2))  # the second of two processes
    sampler = dict(type='DefaultSampler', round_up=share > 0)
    with pytest.raises(UsageError) as raised:
        train(make(Images(number), sampler=sampler, drop_last=True))
    remedy = f'drop_last=False, or batch_size={share} or less' if share else 'another sampler'
    words = f'has {number} images, of which its sampler gives this process {share}; set {remedy}, or give it more'
    assert words in str(raised.value)


@pytest.mark.parametrize('loop', [EPOCHS, ITERATIONS], ids=['epochs', 'iterations'])
@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_check_batches__no_images(make, loop, sampler):
    message = re.escape('(batch_size=4, drop_last=False): the Images of train_dataloader.dataset has 0 images')
    with pytest.raises(UsageError, match=message):
        train(make(Images(0), loop, dict(type=sampler), drop_last=False))


def test_check_batches__options_of_a_batch_sampler(make):
    data = Images(3)
    batches = BatchSampler(range(3), batch_size=5, drop_last=True)
    runner = make(data, kind=Runner)
    runner._train_loop = runner.build_train_loop(dict(EPOCHS))
    runner.train_loop.dataloader = torch.utils.data.DataLoader(data, batch_sampler=batches)
    with pytest.raises(UsageError, match='batch_size=5 and drop_last=True: the Images of .* has 3 images; set'):
        check_run(runner)


@pytest.mark.parametrize('kind', [ResumableRunner, Runner])
@pytest.mark.parametrize('sampler', [dict(type='InfiniteSampler'), Own], ids=['mmengine', 'own'])
def test_check_batches__samplers_without_end_fill_every_batch(make, sampler, kind):
    assert train(make(Images(3), ITERATIONS, sampler, kind=kind, drop_last=True)) == 2


@pytest.mark.parametrize('loop', [dict(EPOCHS, max_epochs=0), dict(ITERATIONS, max_iters=0)], ids=str)
@pytest.mark.parametrize('number', [3, 8])
def test_check_batches__zero_steps_that_are_asked_for(make, loop, number):
    assert train(make(Images(number), loop, drop_last=True)) == 0


@pytest.mark.parametrize('loop', [EPOCHS, ITERATIONS], ids=['epochs', 'iterations'])
def test_check_batches__a_finished_run_is_resumed(make, loop):
    assert train(make(Images(4), loop, drop_last=True)) == 2
    runner = make(Images(4), loop, drop_last=True)
    runner._resume = True
    assert train(runner) == 2


def test_check_batches__a_stream_has_no_number_of_images(make):
    runner = make(Images(4), ITERATIONS, kind=Runner)
    runner._train_loop = runner.build_train_loop(dict(ITERATIONS))
    runner.train_loop.dataloader = torch.utils.data.DataLoader(Stream(), batch_size=20, drop_last=True)
    check_run(runner)


def test_check_batches__of_validation(make):
    runner = make(Images(4))
    runner._train_loop = runner.build_train_loop(dict(EPOCHS))
    loader = dict(dataset=Images(3), sampler=dict(type='DefaultSampler', shuffle=False), batch_size=4, drop_last=True)
    runner._val_dataloader, runner._val_evaluator = loader, []
    runner._val_loop = runner.build_val_loop(dict(type='ValLoop'))
    with pytest.raises(UsageError, match='^val_dataloader gives no batch with batch_size=4 and drop_last=True'):
        check_run(runner)
