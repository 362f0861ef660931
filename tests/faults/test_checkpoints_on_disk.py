"""Damaged checkpoints, and a run without a seed"""

import re
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from bitwise import differences
from train_outputs import error_of, iterations, warnings_of


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
    (said,) = re.findall(r'(?:INFO|WARNING) - (.* starts from scratch.*)', output)
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
