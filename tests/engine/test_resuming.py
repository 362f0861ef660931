import logging
import os

import pytest
import torch
from mmengine.fileio import BaseStorageBackend, register_backend

from sar_mm.engine.resuming import newest_checkpoint
from sar_mm.engine.safe_checkpoints import CheckpointError


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


def test_newest_checkpoint__in_an_object_store(make_runner, stored):
    runner = make_runner(until=2, checkpoint=stored)
    runner.train()
    assert sorted(Store.objects) == ['bucket/run/iter_1.pth', 'bucket/run/iter_2.pth']
    again = make_runner(until=3, checkpoint=stored, resume=True)
    assert newest_checkpoint(again.work_dir, again.hooks, again.logger) == 'bucket/run/iter_2.pth'
    Store.objects.clear()
    with pytest.raises(CheckpointError, match='last_checkpoint names bucket/run/iter_2.pth, which is not there'):
        again.choose_checkpoint()


@pytest.mark.parametrize('last', [None, '', 'stays'])
def test_newest_checkpoint__in_another_folder_under_other_names(make_runner, tmp_path, caplog, last):
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
def test_newest_checkpoint__names_may_have_folders(make_runner, tmp_path, template):
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


def test_check_is_of_run__weights_alone_are_not_resumed(make_runner, tmp_path):
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


def test_newest_checkpoint__a_single_one_under_one_name(make_runner, tmp_path):
    checkpoint = dict(interval=1, filename_tmpl='latest.pth')
    make_runner(until=2, checkpoint=checkpoint).train()
    (tmp_path / 'run' / 'last_checkpoint').unlink()
    path = make_runner(checkpoint=checkpoint, resume=True).choose_checkpoint()
    assert path == str(tmp_path / 'run' / 'latest.pth')


def test_newest_checkpoint__a_note_of_what_is_gone(make_runner, tmp_path, monkeypatch):
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
    assert caplog.messages == [f'{paths[2]} is damaged and skipped: training goes on from {paths[1]}.']
    for path in paths[:2]:
        os.truncate(path, 100)
    with pytest.raises(CheckpointError, match=r'every checkpoint in .* is damaged.*--resume PATH'):
        checkpoints.find()


@pytest.mark.parametrize('named', ['', 'elsewhere/iter_10.pth', '\x00\udcff'])
def test_newest_checkpoint__goes_by_last_checkpoint_where_it_can(checkpoints, named):
    old, new = checkpoints.write('iter_10.pth', 1), checkpoints.write('iter_20.pth', 2)
    (checkpoints.folder / 'last_checkpoint').write_bytes(named.encode(errors='surrogateescape'))
    assert checkpoints.find() == (old if 'iter_10' in named else new)
