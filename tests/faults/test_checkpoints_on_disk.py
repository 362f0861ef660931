"""Damaged checkpoints, full disks, folders that cannot be written to, and a run without a seed"""

import os
import re
import resource
import runpy
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import torch
from kills import QUICKSTART, ROOT, differences
from mmengine.registry import DefaultScope

CONFIG = f"""
_base_ = {str(QUICKSTART / 'sar_resnet18_1xb64-300iter_digits-lt.py')!r}
model = dict(backbone=dict(stem_channels=8, base_channels=8), head=dict(in_channels=32))
train_dataloader = dict(batch_size=4, dataset=dict(indices=16))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=3))
train_cfg = dict(val_interval=100)
"""
_numbers = count()


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with data and a config, that any user may read."""
    pytest.importorskip('mmpretrain.models')
    folder = Path(tempfile.mkdtemp(prefix='checkpoints'))
    folder.chmod(0o755)
    tool = ROOT / 'tools' / 'dataset_converters' / 'digits.py'
    data = str(folder / 'data' / 'digits')
    subprocess.run([sys.executable, str(tool), '--out', data], check=True, stdout=subprocess.DEVNULL)
    (folder / 'config.py').write_text(CONFIG)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def train(place, monkeypatch, capfd):
    """Run tools/train.py, in this process; return its exit code and what it printed."""
    monkeypatch.chdir(place)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))

    def run(work_dir, until, *arguments, options=()):
        monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())  # a Runner changes the scope of all tests
        options = [f'train_cfg.max_iters={until}', f'experiment_name=run{next(_numbers)}', *options]
        command = ['train.py', 'config.py', '--work-dir', str(work_dir), *arguments, '--cfg-options', *options]
        monkeypatch.setattr(sys, 'argv', command)
        capfd.readouterr()
        try:
            runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')
            code = 0
        except SystemExit as end:
            code = end.code
        return code, ''.join(capfd.readouterr())

    return run


@pytest.fixture
def work_dir(place, train):
    """A work folder, relative to the current one, with the checkpoints of iterations 2, 4 and 6."""
    first = place / 'trained'
    if not first.exists():
        assert train('trained', 6)[0] == 0
    # Checkpoints name their folder, so it is there under its own name only.
    kept = place / 'kept'
    if not kept.exists():
        shutil.copytree(first, kept)
    shutil.rmtree(first)
    shutil.copytree(kept, first)
    return first


def iterations(output):
    return [int(step) for step in re.findall(r'Iter\(train\)\s*\[\s*(\d+)/', output)]


def error_of(output):
    """The message of a training that was refused."""
    found = re.search(r'^error: (.+)', output, re.MULTILINE)
    assert found, output[-3000:]
    assert 'Traceback' not in output
    return found[1]


def warnings_of(output):
    return re.findall(r'WARNING - (.* passed over.*)', output)


# ----- Damaged checkpoints


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b'')


def flip(path):
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda info: info.file_size)
    content = bytearray(path.read_bytes())
    # Behind the header of the entry, whose last two lengths are those of the name and of the padding.
    start = info.header_offset + 30 + sum(struct.unpack_from('<HH', content, info.header_offset + 26))
    middle = start + info.file_size // 2
    content[middle : middle + 16] = bytes(255 - byte for byte in content[middle : middle + 16])
    path.write_bytes(content)


def overwrite(path):
    path.write_text('no checkpoint\n' * 1000)


DAMAGES = dict(
    cut=('the newest is cut in half', cut),
    empty=('the newest has 0 bytes', empty),
    flipped=('16 bytes of the weights are flipped in the newest', flip),
    text=('the newest is a text file', overwrite),
    removed=('the newest is gone, last_checkpoint still names it', Path.unlink),
)


@pytest.mark.parametrize('damage', DAMAGES)
def test_resume__takes_the_checkpoint_before_a_damaged_one(damage, work_dir, train, record_property):
    fault, apply = DAMAGES[damage]
    record_property('fault', fault)
    apply(work_dir / 'iter_6.pth')
    code, output = train('trained', 8, '--resume')
    assert code == 0, output[-3000:]
    assert iterations(output) == [5, 6, 7, 8]
    warnings = warnings_of(output)
    if damage == 'removed':
        assert warnings == []
        record_property('outcome', 'resumed from iter_4.pth')
        return
    assert len(warnings) == 1 and 'iter_6.pth' in warnings[0] and 'iter_4.pth' in warnings[0]
    record_property('outcome', f'warning: {warnings[0]}')


def test_resume__passes_over_all_damaged_ones(work_dir, train, record_property):
    record_property('fault', 'the newest has 0 bytes, the one before is cut in half')
    empty(work_dir / 'iter_6.pth')
    cut(work_dir / 'iter_4.pth')
    code, output = train('trained', 8, '--resume')
    assert code == 0 and iterations(output) == [3, 4, 5, 6, 7, 8]
    warnings = warnings_of(output)
    assert len(warnings) == 2 and all('iter_2.pth' in warning for warning in warnings)
    assert 'iter_6.pth' in warnings[0] and 'iter_4.pth' in warnings[1]
    record_property('outcome', f'warnings: {" ".join(warnings)}')


@pytest.mark.parametrize(
    ('fault', 'content'),
    [
        ('last_checkpoint is empty', ''),
        ('last_checkpoint names a file that is not there', 'trained/iter_999.pth'),
        ('last_checkpoint holds no text', b'\xff\xfe\x00'),
        ('last_checkpoint is gone', None),
    ],
    ids=['empty', 'missing', 'binary', 'gone'],
)
def test_resume__does_without_last_checkpoint(fault, content, work_dir, train, record_property):
    record_property('fault', fault)
    path = work_dir / 'last_checkpoint'
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, output = train('trained', 8, '--resume')
    assert code == 0, output[-3000:]
    assert iterations(output) == [7, 8]
    assert path.read_text().endswith('iter_8.pth')
    record_property('outcome', 'resumed from the newest there is, iter_6.pth')


def test_resume__never_takes_a_half_written_file(work_dir, train, record_property):
    record_property('fault', 'a file is left from a save that was killed')
    whole = (work_dir / 'iter_6.pth').read_bytes()
    left = work_dir / '.iter_8.pth.tmp'
    left.write_bytes(whole[: len(whole) // 2])
    code, output = train('trained', 8, '--resume')
    assert code == 0 and iterations(output) == [7, 8]
    assert not left.exists()
    torch.load(work_dir / 'iter_8.pth', map_location='cpu', weights_only=False)
    record_property('outcome', 'not taken, and written over by the next save: resumed from iter_6.pth')


def test_resume__refuses_to_start_anew_where_all_are_damaged(work_dir, train, record_property):
    record_property('fault', 'every checkpoint is damaged')
    for path, damage in zip(sorted(work_dir.glob('*.pth')), (cut, empty, flip)):
        damage(path)
    before = {path.name: path.read_bytes() for path in work_dir.glob('*.pth')}
    code, output = train('trained', 8, '--resume')
    message = error_of(output)
    assert code == 2 and iterations(output) == []
    assert 'damaged' in message and all(name in message for name in before) and '--resume' in message
    assert {path.name: path.read_bytes() for path in work_dir.glob('*.pth')} == before
    record_property('outcome', f'exit code 2: {message}')


def test_resume__a_damaged_one_by_name_is_an_error(work_dir, train, record_property):
    record_property('fault', '--resume PATH with a checkpoint cut in half')
    cut(work_dir / 'iter_6.pth')
    code, output = train('trained', 8, '--resume', 'trained/iter_6.pth')
    message = error_of(output)
    assert code == 2 and iterations(output) == [] and 'trained/iter_6.pth' in message
    record_property('outcome', f'exit code 2: {message}')


def test_resume__starts_anew_where_there_is_none(place, train, record_property):
    record_property('fault', '--resume in a new work folder')
    code, output = train('new', 2, '--resume')
    assert code == 0 and iterations(output) == [1, 2]
    (said,) = re.findall(r'(?:INFO|WARNING) - (.* starts anew.*)', output)
    record_property('outcome', said)


def test_resume__goes_on_with_the_seed_that_was_drawn(place, train, record_property):
    record_property('fault', 'a run without a seed in its config, resumed from its first checkpoint')
    work_dir, options = place / 'seedless', ['randomness.seed=None']
    assert train('seedless', 6, options=options)[0] == 0
    expected = torch.load(work_dir / 'iter_6.pth', map_location='cpu', weights_only=False)
    for name in ('iter_4.pth', 'iter_6.pth', 'last_checkpoint'):
        (work_dir / name).unlink()
    code, output = train('seedless', 6, '--resume', options=options)
    assert code == 0 and iterations(output) == [3, 4, 5, 6]
    found = torch.load(work_dir / 'iter_6.pth', map_location='cpu', weights_only=False)
    assert differences(found, expected) == []
    assert train('another', 6, options=options)[0] == 0
    another = torch.load(place / 'another' / 'iter_6.pth', map_location='cpu', weights_only=False)
    assert differences(another['state_dict'], expected['state_dict']) != []
    record_property('outcome', f'seed {expected["meta"]["seed"]} taken from the checkpoint; bit-identical')


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
