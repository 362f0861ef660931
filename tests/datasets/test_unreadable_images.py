"""Semi-supervised data sets of which images cannot be read."""

import logging

import pytest
from labeled_and_unlabeled import BRANCHES, LOAD, Memory, broken, build, damage, value
from PIL import Image

from sar_mm.datasets import SemiSupervisedDataset


@pytest.fixture
def warned(monkeypatch):
    """What is logged as a warning."""
    messages = []

    def note(message, logger, level):
        messages.append(message if (logger, level) == ('current', logging.WARNING) else None)

    monkeypatch.setattr('sar_mm.datasets.semi_supervised.print_log', note)
    return messages


@pytest.mark.parametrize('kind', ['missing', 'empty', 'no image', 'cut'])
def test_semi_supervised__unreadable_unlabeled_image_is_skipped(folders, warned, kind):
    data = build(folders)
    path = folders / 'unlabeled' / '5.png'
    content = path.read_bytes()
    path.unlink()
    if kind != 'missing':
        path.write_bytes({'empty': b'', 'no image': b'text', 'cut': content[:30]}[kind])
    assert [value(data[index].weak) for index in (8, 9, 4)] == [104, 100, 100]
    data[9]
    assert len(warned) == 1 and f'unlabeled image {path} is skipped (' in warned[0]
    assert warned[0].endswith('; 1 unreadable so far in this process')
    damage(folders, 2)
    assert value(data[6].weak) == 103
    assert warned[1].endswith('(it cannot be decoded); 2 unreadable so far in this process')
    path.write_bytes(content)  # may have been out of reach for a while only
    assert value(data[9].weak) == 105


def test_semi_supervised__too_many_unreadable_images(folders, warned):
    data = build(folders, max_unreadable=1)
    damage(folders, 1, 2)
    assert value(data[6].weak) == 103
    with pytest.raises(RuntimeError, match=r'2 unlabeled images cannot be read, more than max_unreadable=1.*1\.png'):
        data[5]
    damage(folders, *range(6))
    with pytest.raises(RuntimeError, match='none of the 6 unlabeled images can be read'):
        build(folders)[4]
    assert len(warned) == 1 + 6


def test_semi_supervised__unreadable_labeled_image_raises(folders, warned):
    data = build(folders)
    (folders / 'labeled' / '2.png').write_bytes(b'text')
    with pytest.raises(AssertionError, match='failed to load image'):
        data[2]
    assert not warned


def test_semi_supervised__other_errors_of_a_pipeline_are_raised(folders, warned):
    for path in (folders / 'unlabeled').iterdir():
        Image.new('RGB', (4, 4)).save(path, format='PCX')  # which Pillow decodes and OpenCV does not
    load = dict(LOAD, imdecode_backend='pillow')
    in_memory = SemiSupervisedDataset(Memory([0] * 4), Memory(pipeline=broken))
    for data in (build(folders, unlabeled=[load, broken, BRANCHES]), in_memory):
        with pytest.raises(KeyError, match='gt_bboxes'):
            data[4]
    assert not warned
    with pytest.raises(RuntimeError, match='none of the 6 unlabeled images can be read'):
        build(folders)[4]
