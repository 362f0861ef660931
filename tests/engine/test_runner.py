import logging
import os
import shutil
from collections import OrderedDict
from decimal import Decimal

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.evaluator import BaseMetric
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader, FlexibleRunner, Runner
from torch import nn
from torch.utils.data import Dataset

from sar_mm.engine.resuming import newest_checkpoint
from sar_mm.engine.runner import ResumableRunner
from sar_mm.engine.safe_checkpoints import CheckpointError


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


@pytest.fixture
def make_runner(tmp_path, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())  # a Runner changes the scope of all tests

    def make_runner(
        name='run',
        until=9,
        by_epoch=False,
        resume=False,
        seed=5,
        checkpoint=None,
        sampler=None,
        kind=ResumableRunner,
        workers=0,
        **options,
    ):
        loader = dict(dataset=Points(), batch_size=3, num_workers=workers, collate_fn=dict(type='pseudo_collate'))
        train_cfg = dict(by_epoch=True, max_epochs=until) if by_epoch else dict(by_epoch=False, max_iters=until)
        # One that goes by the validations, which is for epochs only, or by the iterations.
        plateau = dict(type='ReduceOnPlateauLR', monitor='output', patience=0)
        scheduler = plateau if by_epoch else dict(type='StepLR', step_size=2)
        recorder = Recorder()
        is_own = kind is ResumableRunner
        hooks = [] if is_own else [dict(type='SeedByPlaceHook')]
        runner = kind(
            model=Model(),
            work_dir=str(tmp_path / name),
            train_dataloader=dict(
                sampler=dict(type=sampler or (DefaultSampler if by_epoch else InfiniteSampler)), **loader
            ),
            val_dataloader=dict(sampler=dict(type=DefaultSampler, shuffle=False), **loader),
            train_cfg=dict(val_interval=2 if by_epoch else 3, **train_cfg),
            val_cfg=dict(),
            val_evaluator=dict(type=MeanOutput),
            optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
            param_scheduler=dict(by_epoch=by_epoch, **scheduler),
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook' if is_own else 'AtomicCheckpointHook',
                    by_epoch=by_epoch,
                    **(checkpoint or dict(interval=1)),
                ),
                logger=dict(type='LoggerHook', interval=1),
            ),
            custom_hooks=[recorder, *hooks],
            randomness=dict(seed=seed),
            resume=resume,
            default_scope='mmengine',
            experiment_name=f'{name}{os.urandom(4).hex()}',
            **options,
        )
        runner.recorder = recorder
        return runner

    return make_runner


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


@pytest.mark.parametrize(
    'by_epoch, stop, end, seed', [(False, 'iter_4', 'iter_9', 5), (True, 'epoch_3', 'epoch_5', None)]
)
def test_runner__a_resumed_run_ends_as_the_whole_one(make_runner, tmp_path, by_epoch, stop, end, seed):
    until = 5 if by_epoch else 9
    whole = make_runner('whole', until, by_epoch, seed=seed)
    whole.train()
    start_from(whole, tmp_path / 'resumed', stop, whole)
    resumed = make_runner('resumed', until, by_epoch, resume=True, seed=seed)
    resumed.train()
    assert resumed.seed == whole.seed
    assert same(read(resumed, end), read(whole, end))


@pytest.mark.parametrize(
    'kind, workers, by_epoch, stop, end',
    [
        (Runner, 1, False, 'iter_4', 'iter_9'),
        (Runner, 0, True, 'epoch_3', 'epoch_5'),
        (FlexibleRunner, 0, False, 'iter_4', 'iter_9'),
        (FlexibleRunner, 0, True, 'epoch_3', 'epoch_5'),
    ],
)
def test_hooks__make_other_runners_resume_as_well(make_runner, by_epoch, stop, end, kind, workers):
    until = 5 if by_epoch else 9
    runs = []
    for each in (kind, ResumableRunner):
        torch.manual_seed(0)  # the models start alike
        runs.append(make_runner(each.__name__, until, by_epoch, kind=each, workers=workers))
        runs[-1].train()
    whole, own = runs
    assert same(read(whole, end), read(own, end))
    path = f'{whole.work_dir}/{stop}.pth'
    resumed = make_runner('resumed', until, by_epoch, resume=True, load_from=path, kind=kind, workers=workers)
    resumed.train()
    assert same(read(resumed, end), read(whole, end))


@pytest.mark.parametrize('by_epoch, stop, end', [(False, 'iter_6', 'iter_9'), (True, 'epoch_2', 'epoch_5')])
def test_runner__a_validation_cut_short_is_made_up_for(make_runner, tmp_path, by_epoch, stop, end):
    """With epochs, the learning rate follows the validations: it is the same if none is left out or done twice."""
    until = 5 if by_epoch else 9
    whole = make_runner('whole', until, by_epoch)
    whole.train()
    start_from(whole, tmp_path / 'resumed', stop, whole)
    resumed = make_runner('resumed', until, by_epoch, resume=True)
    resumed.train()
    number = len(resumed.recorder.validated)
    assert number >= 2 and resumed.recorder.validated == whole.recorder.validated[-number:]
    assert same(read(resumed, end), read(whole, end))


def test_runner__a_validation_in_the_checkpoint_is_not_done_twice(make_runner, tmp_path):
    best = dict(interval=3, save_best='output', rule='greater')
    whole = make_runner('whole', checkpoint=best)
    whole.train()
    first = torch.load(f'{whole.work_dir}/iter_3.pth', weights_only=False)
    assert first['message_hub']['runtime_info']['evaluated_at'] == 3  # saved again, as the best one so far
    start_from(whole, tmp_path / 'resumed', 'iter_3', whole)
    resumed = make_runner('resumed', resume=True, checkpoint=best)
    resumed.train()
    assert resumed.recorder.validated == whole.recorder.validated[1:]
    assert same(read(resumed, 'iter_9'), read(whole, 'iter_9'))


def test_runner__auto_starts_from_load_from_where_nothing_can_be_resumed(make_runner, tmp_path):
    first = make_runner('first', until=2)
    first.train()
    weights = str(tmp_path / 'first' / 'iter_2.pth')
    runner = make_runner('second', until=1, resume='auto', load_from=weights)
    assert runner.choose_checkpoint() is None
    runner.load_or_resume()
    assert same(dict(runner.model.state_dict()), dict(first.model.state_dict()))
    runner.train()
    again = make_runner('second', until=3, resume='auto', load_from=weights)
    assert again.choose_checkpoint() == str(tmp_path / 'second' / 'iter_1.pth')


@pytest.mark.parametrize('kind', [ResumableRunner, Runner])
def test_checkpoints__one_is_kept_while_the_next_is_saved(make_runner, kind):
    runner = make_runner(checkpoint=dict(interval=1, max_keep_ckpts=1), kind=kind)
    runner.train()
    assert sorted(name for name in os.listdir(runner.work_dir) if name.endswith('.pth')) == ['iter_8.pth', 'iter_9.pth']


@pytest.mark.parametrize('kind', [ResumableRunner, Runner, FlexibleRunner])
def test_checkpoints__one_that_cannot_be_written_leaves_the_others(make_runner, monkeypatch, kind):
    runner = make_runner(until=3, kind=kind)

    def replace(source, target):
        if target.endswith('iter_2.pth'):
            raise OSError(28, 'No space left on device')
        os.rename(source, target)

    monkeypatch.setattr('sar_mm.engine.saving.os.replace', replace)
    with pytest.raises(CheckpointError, match=r'iter_2\.pth cannot be written.*No space left.*MB are free.*--resume'):
        runner.train()
    names = [name for name in os.listdir(runner.work_dir) if 'pth' in name]
    assert names == ['iter_1.pth']
    assert newest_checkpoint(runner.work_dir, runner.hooks, logging.getLogger()).endswith('iter_1.pth')


@pytest.mark.parametrize('kind', [ResumableRunner, Runner, FlexibleRunner])
def test_checkpoints__no_room_for_one_is_told_before_training(make_runner, monkeypatch, kind):
    runner = make_runner(until=1, kind=kind)
    # 21 weights and two moments of each, in float32.
    monkeypatch.setattr('sar_mm.engine.saving.shutil.disk_usage', lambda folder: shutil._ntuple_diskusage(1, 1, 251))
    with pytest.raises(CheckpointError, match=r"work_dir='.*' has no room .* at least 0\.0 MB.*--work-dir"):
        runner.train()
    assert runner.iter == 0
    monkeypatch.setattr('sar_mm.engine.saving.shutil.disk_usage', lambda folder: shutil._ntuple_diskusage(1, 1, 252))
    runner.train()


def test_runner__a_config_in_a_checkpoint_is_not_run(make_runner, tmp_path):
    runner = make_runner(until=2)
    runner.train()
    path, mark = f'{runner.work_dir}/iter_2.pth', tmp_path / 'was-run'
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['config'] = f'open({str(mark)!r}, "w")'
    torch.save(checkpoint, path)
    make_runner(until=3, resume=True).train()
    assert not mark.exists()


def test_runner__reads_the_checkpoint_once_and_says_why_it_is_this_one(make_runner, tmp_path, monkeypatch):
    make_runner(until=2).train()
    read, loads = CheckpointLoader.load_checkpoint, []
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', lambda path, *rest, **kw: loads.append(path) or read(path))
    path, said = str(tmp_path / 'run' / 'iter_2.pth'), []
    for options, why in (
        ({}, 'the newest whole checkpoint in'),
        (dict(load_from=path), 'named by --resume or load_from'),
    ):
        runner = make_runner(until=3, resume=True, **options)
        monkeypatch.setattr(type(runner.logger), 'info', lambda self, message, *args: said.append(message))
        assert runner.choose_checkpoint() == path
        runner.train()
        assert runner.iter == 3 and loads == [path]
        assert len([line for line in said if line.startswith(f'Resume from {path}, ') and why in line]) == 1
        (tmp_path / 'run' / 'iter_3.pth').unlink()
        (tmp_path / 'run' / 'last_checkpoint').write_text(path)
        loads.clear()


class Store(BaseStorageBackend):
    """A store that is no folder, but a dict."""

    objects = {}

    def __init__(self, key):
        assert key == 1

    def put(self, obj, path):
        self.objects[path] = obj

    def put_text(self, obj, path):
        self.objects[path] = obj

    def get(self, path):
        return self.objects[path]

    def get_text(self, path):
        return self.objects[path]

    def isfile(self, path):
        return path in self.objects

    def join_path(self, path, *paths):
        return '/'.join((path, *paths))


@pytest.fixture
def stored(monkeypatch):
    register_backend('store', Store, force=True)
    monkeypatch.setattr(Store, 'objects', {})
    return dict(interval=1, out_dir='bucket', backend_args=dict(backend='store', key=1))


def test_runner__checkpoints_in_an_object_store(make_runner, stored):
    runner = make_runner(until=2, checkpoint=stored)
    runner.train()
    assert sorted(Store.objects) == ['bucket/run/iter_1.pth', 'bucket/run/iter_2.pth']
    again = make_runner(until=3, checkpoint=stored, resume=True)
    assert newest_checkpoint(again.work_dir, again.hooks, again.logger) == 'bucket/run/iter_2.pth'
    Store.objects.clear()
    with pytest.raises(CheckpointError, match='last_checkpoint names bucket/run/iter_2.pth, which is not there'):
        again.choose_checkpoint()


@pytest.mark.parametrize('last', [None, '', 'stays'])
def test_runner__checkpoints_in_another_folder_under_other_names(make_runner, tmp_path, caplog, last):
    checkpoint = dict(interval=1, out_dir=str(tmp_path / 'out'), filename_tmpl='step-{:04d}.pth')
    runner = make_runner(until=3, checkpoint=checkpoint)
    runner.train()
    note = tmp_path / 'run' / 'last_checkpoint'
    if last is None:
        note.unlink()
    elif not last:
        note.write_text('')
    folder = tmp_path / 'out' / 'run'
    assert make_runner(checkpoint=checkpoint, resume=True).choose_checkpoint() == str(folder / 'step-0003.pth')
    os.truncate(folder / 'step-0003.pth', 100)
    assert make_runner(checkpoint=checkpoint, resume=True).choose_checkpoint() == str(folder / 'step-0002.pth')


@pytest.mark.parametrize('template', ['ck/iter_{}.pth', 'at_{}/model.pth'])
def test_runner__names_of_checkpoints_may_have_folders(make_runner, tmp_path, template):
    checkpoint = dict(interval=1, filename_tmpl=template)
    make_runner(until=3, checkpoint=checkpoint).train()
    work_dir = tmp_path / 'run'
    paths = [str(work_dir / template.format(number)) for number in (1, 2, 3)]
    assert [path for path in paths if not os.path.exists(path)] == []
    for note in ('as it is', 'of a folder that was moved', 'none'):
        if note == 'of a folder that was moved':
            (work_dir / 'last_checkpoint').write_text(paths[2].replace('/run/', '/before/'))
        elif note == 'none':
            (work_dir / 'last_checkpoint').unlink()
        assert make_runner(checkpoint=checkpoint, resume=True).choose_checkpoint() == paths[2]
    os.truncate(paths[2], 100)
    runner = make_runner(until=4, checkpoint=checkpoint, resume=True)
    assert runner.choose_checkpoint() == paths[1]
    runner.train()
    assert runner.iter == 4


def test_runner__a_validation_alone_needs_no_training_data(make_runner, tmp_path):
    make_runner('first', until=2).train()
    runner = make_runner(load_from=str(tmp_path / 'first' / 'iter_2.pth'))
    runner.hooks.remove(runner.recorder)  # asks for the iteration, which builds the training loop
    metrics = runner.val()
    assert 'output' in metrics and isinstance(runner._train_loop, dict)


def test_runner__weights_alone_are_not_resumed(make_runner, tmp_path):
    make_runner('first', until=2).train()
    checkpoint = torch.load(tmp_path / 'first' / 'iter_2.pth', weights_only=False)
    for kept in (['meta', 'state_dict'], ['state_dict']):
        path = str(tmp_path / 'weights.pth')
        torch.save({name: checkpoint[name] for name in kept}, path)
        runner = make_runner('second', resume=True, load_from=path)
        with pytest.raises(CheckpointError, match=r'weights\.pth cannot be resumed: .*message_hub.*set load_from='):
            runner.train()
        assert runner.iter == 0
    make_runner('third', until=1, load_from=path).train()


@pytest.mark.parametrize(
    'sampler, by_epoch, stop, end',
    [
        ('RandomSampler', False, 'iter_6', 'iter_9'),
        ('RandomSampler', True, 'epoch_2', 'epoch_4'),
        ('WeightedRandomSampler', False, 'iter_6', 'iter_9'),
        ('SequentialSampler', True, 'epoch_2', 'epoch_4'),
    ],
)
def test_runner__resumes_with_samplers_that_nobody_tells_the_epoch(
    make_runner, tmp_path, monkeypatch, sampler, by_epoch, stop, end
):
    """Passes of 4 iterations; mmengine waits 2 seconds between two."""
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    kind = getattr(torch.utils.data, sampler)

    def make(dataset, seed=None):
        return kind([1.0] * 12, 12) if sampler == 'WeightedRandomSampler' else kind(dataset)

    until = 4 if by_epoch else 9
    options = dict(by_epoch=by_epoch, sampler=make)
    whole = make_runner('whole', until, **options)
    whole.train()
    start_from(whole, tmp_path / 'resumed', stop, whole)
    resumed = make_runner('resumed', until, resume=True, **options)
    resumed.train()
    assert same(read(resumed, end), read(whole, end))


def test_runner__a_single_checkpoint_under_one_name(make_runner, tmp_path):
    checkpoint = dict(interval=1, filename_tmpl='latest.pth')
    make_runner(until=2, checkpoint=checkpoint).train()
    (tmp_path / 'run' / 'last_checkpoint').unlink()
    path = make_runner(checkpoint=checkpoint, resume=True).choose_checkpoint()
    assert path == str(tmp_path / 'run' / 'latest.pth')


def test_runner__another_folder_that_cannot_be_written_to_is_told_before_training(make_runner, tmp_path):
    (tmp_path / 'file').write_text('')
    runner = make_runner(checkpoint=dict(interval=1, out_dir=str(tmp_path / 'file' / 'out')))
    with pytest.raises(CheckpointError, match="out_dir='.*file/out' cannot be written to: Not a directory"):
        runner.train()
    assert runner.iter == 0


def test_runner__what_cannot_be_resumed_is_told_with_the_first_checkpoint(make_runner, monkeypatch):
    runner, warned = make_runner(until=2), []
    runner.message_hub.update_info('oddity', Decimal(1))
    monkeypatch.setattr(type(runner.logger), 'warning', lambda self, message, *args: warned.append(message))
    runner.train()
    warned = [message for message in warned if 'decimal.Decimal' in message]
    assert len(warned) == 1 and 'resumed only with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1' in warned[0]


def test_runner__a_note_of_what_is_gone(make_runner, tmp_path, monkeypatch):
    runner = make_runner(resume=True)
    (tmp_path / 'run' / 'last_checkpoint').write_text('/mnt/elsewhere/iter_3.pth')
    warned = []
    monkeypatch.setattr(runner.logger, 'warning', lambda message, *args: warned.append(message))
    assert runner.choose_checkpoint() is None
    assert any('names /mnt/elsewhere/iter_3.pth, which is not there' in message for message in warned)


class Checkpoints:
    def __init__(self, folder):
        self.folder = folder

    def write(self, name, time):
        torch.save(dict(weight=torch.ones(100)), self.folder / name)
        os.utime(self.folder / name, (time, time))
        return str(self.folder / name)

    def damage(self, path):
        with open(path, 'r+b') as file:
            file.seek(os.path.getsize(path) // 2)
            file.write(b'\xff' * 8)

    def find(self):
        return newest_checkpoint(str(self.folder), [], logging.getLogger('sar_mm.test'))


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path)


def test_newest_checkpoint__the_newest_or_the_one_before(checkpoints, caplog):
    assert checkpoints.find() is None
    paths = [checkpoints.write(f'iter_{number}.pth', time) for number, time in ((80, 1), (10, 2), (20, 3))]
    checkpoints.write('best_accuracy_iter_20.pth', 4)
    assert checkpoints.find() == paths[2]  # 80 is of an older run
    checkpoints.damage(paths[2])
    assert checkpoints.find() == paths[1]
    assert caplog.messages == [f'{paths[2]} is damaged and passed over: training goes on from {paths[1]}.']
    for path in paths[:2]:
        os.truncate(path, 100)
    with pytest.raises(CheckpointError, match=r'every checkpoint in .* is damaged.*--resume PATH'):
        checkpoints.find()


@pytest.mark.parametrize('named', ['', 'elsewhere/iter_10.pth', '\x00\udcff'])
def test_newest_checkpoint__goes_by_last_checkpoint_where_it_can(checkpoints, named):
    old, new = checkpoints.write('iter_10.pth', 1), checkpoints.write('iter_20.pth', 2)
    (checkpoints.folder / 'last_checkpoint').write_bytes(named.encode(errors='surrogateescape'))
    assert checkpoints.find() == (old if 'iter_10' in named else new)
