"""Full disks, and folders that cannot be written to"""

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager

import pytest
import torch
from kill_tasks import QUICKSTART
from train_outputs import error_of, iterations

# ----- Full disks


@contextmanager
def mounted(folder, *options):
    """A file system in memory, where this user may mount one."""
    folder.mkdir(exist_ok=True)
    command = ['mount', '-t', 'tmpfs', '-o', ','.join(options), 'tmpfs', str(folder)]
    if not shutil.which('mount') or subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
        pytest.skip('takes a user who may mount file systems')
    try:
        yield
    finally:
        subprocess.run(['umount', '-l', str(folder)], check=True)


@contextmanager
def file_size_limit(size):
    """Let no file grow beyond ``size`` bytes; writes fail as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def size_of_a_checkpoint(work_dir):
    return (work_dir / 'iter_6.pth').stat().st_size


def assert_whole(folder, *expected):
    """These checkpoints are there, whole, and nothing else is left of one."""
    assert {path.name for path in folder.iterdir() if '.pth' in path.name} == set(expected)
    for name in expected:
        torch.load(folder / name, map_location='cpu', weights_only=False)


def test_full_disk__is_said_before_training(place, work_dir, train, record_property):
    record_property('fault', 'a disk without room for one checkpoint')
    with mounted(place / 'small', f'size={size_of_a_checkpoint(work_dir) // 2}'):
        code, output = train('small/run', 8)
        message = error_of(output)
        assert code == 2 and iterations(output) == []
        assert 'small/run' in message and 'room' in message and '--work-dir' in message
        record_property('outcome', f'exit code 2, before training: {message}')


def test_full_disk__earlier_checkpoints_stay_whole(place, work_dir, train, record_property):
    record_property('fault', 'a disk that is full at the third checkpoint')
    size = int(2.6 * size_of_a_checkpoint(work_dir))
    with mounted(place / 'filling', f'size={size}'):
        code, output = train('filling/run', 8)
        message = error_of(output)
        assert code == 2 and iterations(output)[-1] in (5, 6)
        assert 'iter_6.pth' in message and 'No space left' in message and '--resume' in message
        assert_whole(place / 'filling' / 'run', 'iter_2.pth', 'iter_4.pth')
        # With room again, it goes on.
        subprocess.run(['mount', '-o', f'remount,size={2 * size}', str(place / 'filling')], check=True)
        code, output = train('filling/run', 8, '--resume')
        assert code == 0 and iterations(output) == [5, 6, 7, 8]
        assert_whole(place / 'filling' / 'run', 'iter_4.pth', 'iter_6.pth', 'iter_8.pth')
    record_property('outcome', f'exit code 2: {message}; with room, it went on from iter_4.pth')


def test_failing_write__earlier_checkpoints_stay_whole(place, work_dir, train, record_property):
    record_property('fault', 'a write that fails in the middle of a checkpoint (quota, limit of file sizes)')
    with file_size_limit(size_of_a_checkpoint(work_dir) // 2):
        code, output = train('trained', 8, '--resume')
    message = error_of(output)
    assert code == 2 and iterations(output)[-1] in (7, 8)
    assert 'iter_8.pth' in message and 'File too large' in message
    assert (work_dir / 'last_checkpoint').read_text().endswith('iter_6.pth')
    # CheckpointHook removes the oldest of those to keep before it saves.
    assert_whole(work_dir, 'iter_4.pth', 'iter_6.pth')
    record_property('outcome', f'exit code 2: {message}')
    code, output = train('trained', 8, '--resume')
    assert code == 0 and iterations(output) == [7, 8]


# ----- Folders that cannot be written to


@contextmanager
def another_user():
    """Let this process have the rights of a user whom nothing belongs to."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        if not os.access(QUICKSTART, os.R_OK | os.X_OK, effective_ids=True):
            pytest.skip('takes a clone that other users may read')
        yield
    finally:
        os.seteuid(0)


def assert_unwritable(result, folder, record_property):
    code, output = result
    message = error_of(output)
    assert code == 2 and iterations(output) == []
    assert folder in message and 'cannot be written' in message and '--work-dir' in message
    record_property('outcome', f'exit code 2: {message}')


def test_unwritable__below_a_file(place, train, record_property):
    record_property('fault', '--work-dir below a regular file')
    (place / 'file').write_text('')
    assert_unwritable(train('file/run', 2), 'file/run', record_property)


def test_unwritable__read_only_file_system(place, train, record_property):
    record_property('fault', '--work-dir on a file system mounted read-only')
    with mounted(place / 'read_only', 'ro'):
        assert_unwritable(train('read_only', 2), 'read_only', record_property)


@pytest.mark.parametrize('folder', ['others', 'others/run'], ids=['there', 'new'])
def test_unwritable__of_another_user(folder, place, train, record_property):
    record_property('fault', f'--work-dir {"in " if "/" in folder else ""}a folder without the right to write')
    (place / 'others').mkdir(exist_ok=True)
    (place / 'others').chmod(0o555)
    with another_user():
        result = train(folder, 2)
    assert_unwritable(result, folder, record_property)
