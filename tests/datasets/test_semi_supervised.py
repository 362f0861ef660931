import logging

import pytest
import torch
from mmengine.dataset import BaseDataset, default_collate, pseudo_collate
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from PIL import Image

from sar_mm.datasets import LabelledSubset, LongTailedDataset, SemiSupervisedDataset, class_counts
from sar_mm.registry import DATASETS


class Files(BaseDataset):
    """Images of a folder; the label is the first digit of the name."""

    def load_data_list(self):
        paths = sorted(self.folder().iterdir())
        return [dict(img_path=str(path), gt_label=int(path.stem[0]) % 2) for path in paths if path.suffix == '.png']

    def folder(self):
        from pathlib import Path

        return Path(self.data_prefix['img_path'])

    def get_cat_ids(self, idx):
        return [self.get_data_info(idx)['gt_label']]


class Memory:
    """Images that are no files."""

    def __init__(self, labels, data_root=None, classes=('a', 'b'), pipeline=lambda index: dict(inputs=index)):
        self.labels, self.pipeline = labels, pipeline
        self.metainfo = dict() if classes is None else dict(classes=classes)
        if data_root is not None:
            self.data_root = data_root

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.pipeline(index)

    def get_data_info(self, index):
        return dict(gt_label=self.labels[index])

    def get_cat_ids(self, index):
        return [self.labels[index]]


@pytest.fixture(autouse=True, scope='module')
def registered():
    MMENGINE_DATASETS.register_module(name='SemiTestFiles', module=Files)
    yield
    MMENGINE_DATASETS.module_dict.pop('SemiTestFiles')


@pytest.fixture
def folders(tmp_path):
    """4 labelled images and 6 unlabelled ones, of the values 0, 1, ... and 100, 101, ..."""
    for name, first, number in (('labelled', 0, 4), ('unlabelled', 100, 6)):
        (tmp_path / name).mkdir()
        for index in range(number):
            Image.new('RGB', (4, 4), (first + index,) * 3).save(tmp_path / name / f'{index}.png')
    return tmp_path


def pack(results):
    image = torch.from_numpy(results['img']).permute(2, 0, 1)
    return dict(inputs=image, data_samples=BaseDataElement(path=results['img_path']))


def negate(results):
    results['img'] = 255 - results['img']
    return results


LOAD = dict(type='mmcv.LoadImageFromFile')
BRANCHES = dict(type='MultiBranch', weak=[pack], strong=[negate, pack])
CLASSES = dict(classes=('even', 'odd'))


def files(folder, name, pipeline, **options):
    prefix = dict(img_path=name)
    options = {'metainfo': CLASSES, 'serialize_data': False, **options}  # serializing collects garbage, which is slow
    return dict(type='SemiTestFiles', data_root=str(folder), data_prefix=prefix, pipeline=pipeline, **options)


def build(folder, labelled=(LOAD, pack), unlabelled=(LOAD, BRANCHES), **options):
    return SemiSupervisedDataset(
        files(folder, 'labelled', list(labelled)), files(folder, 'unlabelled', list(unlabelled)), **options
    )


def value(packed):
    return packed['inputs'].unique().item()


def views(index):
    return dict(weak=dict(inputs=index), strong=dict(inputs=index))


@pytest.fixture
def warned(monkeypatch):
    """What is logged as a warning."""
    messages = []

    def note(message, logger, level):
        assert (logger, level) == ('current', logging.WARNING)
        messages.append(message)

    monkeypatch.setattr('sar_mm.datasets.semi_supervised.print_log', note)
    return messages


def test_semi_supervised__labelled_images_come_first(folders):
    data = build(folders)
    assert (data.num_labelled, data.num_unlabelled, len(data)) == (4, 6, 10)
    items = [data[index] for index in range(10)]
    assert [set(item.keys()) for item in items] == [{'labelled'}] * 4 + [{'weak', 'strong'}] * 6
    assert [value(item.labelled) for item in items[:4]] == [0, 1, 2, 3]
    assert [value(item.weak) for item in items[4:]] == [100, 101, 102, 103, 104, 105]
    assert [value(item.strong) for item in items[4:]] == [155, 154, 153, 152, 151, 150]
    assert data[-1].weak['data_samples'].path == str(folders / 'unlabelled' / '5.png')
    assert data.get_data_info(3)['img_path'].endswith('labelled/3.png')
    assert data.get_data_info(4)['img_path'].endswith('unlabelled/0.png')
    with pytest.raises(IndexError):
        data[10]


def test_semi_supervised__metainfo_and_counts_are_those_of_the_labelled_images(folders):
    data = build(folders)
    assert data.metainfo == CLASSES
    assert class_counts(data) == [2, 2]
    assert not hasattr(data, 'get_cat_ids')


@pytest.mark.parametrize('collate', [pseudo_collate, default_collate])
def test_semi_supervised__collate_functions_leave_a_mixed_batch_alone(folders, collate):
    data = build(folders)
    batch = [data[0], data[5], data[1]]
    assert collate(batch) is batch


@pytest.mark.parametrize('collate', ['pseudo_collate', 'default_collate'])
@pytest.mark.parametrize('num_workers', [0, 1])
def test_semi_supervised__works_in_a_dataloader(folders, collate, num_workers):
    config = dict(
        dataset=dict(
            type='sar_mm.SemiSupervisedDataset',
            labelled=files(folders, 'labelled', [LOAD, pack]),
            unlabelled=files(folders, 'unlabelled', [LOAD, BRANCHES]),
        ),
        sampler=dict(type='LabelledUnlabelledSampler', labelled=1, unlabelled=2),
        batch_size=3,
        num_workers=num_workers,
        collate_fn=dict(type=collate),
    )
    loader = Runner.build_dataloader(config, seed=0)
    batches = [batch for _, batch in zip(range(6), loader)]
    assert all([set(item.keys()) for item in batch] == [{'labelled'}] + 2 * [{'weak', 'strong'}] for batch in batches)
    assert sorted(value(item.weak) for batch in batches[:3] for item in batch[1:]) == list(range(100, 106))


def test_semi_supervised__lazy(folders):
    config = dict(type='SemiSupervisedDataset', lazy_init=True)
    parts = dict(
        labelled=files(folders, 'labelled', [LOAD, pack], lazy_init=True),
        unlabelled=files(folders, 'labelled', [LOAD, BRANCHES], lazy_init=True),
    )
    data = DATASETS.build(dict(config, **parts))
    with pytest.raises(ValueError, match='4 of the 4 labelled images are unlabelled, too'):
        len(data)


@pytest.mark.parametrize('part', ['labelled', 'unlabelled'])
@pytest.mark.parametrize('is_missing', [False, True])
def test_semi_supervised__empty_or_missing_folder(folders, part, is_missing):
    for path in (folders / part).iterdir():
        path.unlink()
    if is_missing:
        (folders / part).rmdir()
    missing = f'^the {part} images of SemiSupervisedDataset cannot be loaded from .*/{part}: '
    empty = f'^SemiSupervisedDataset has no {part} images: .*/{part} is empty'
    with pytest.raises(ValueError, match=missing if is_missing else empty):
        build(folders)


def test_semi_supervised__empty_folder_of_mmseg(folders):
    pytest.importorskip('mmseg.datasets')
    prefix = dict(img_path='unlabelled', seg_map_path='none')
    unlabelled = dict(type='mmseg.BaseSegDataset', data_root=str(folders), data_prefix=prefix, img_suffix='.tif')
    with pytest.raises(ValueError, match='the unlabelled images .* from .*/unlabelled: there is no such image'):
        SemiSupervisedDataset(Memory([0, 1]), unlabelled)
    with pytest.raises(ValueError, match="the unlabelled images .* with ann_file='absent.txt': Failed to load"):
        SemiSupervisedDataset(Memory([0, 1]), dict(unlabelled, ann_file='absent.txt'))


@pytest.mark.parametrize(('labelled', 'unlabelled'), [([], [0]), ([0], [])])
def test_semi_supervised__empty_part(labelled, unlabelled):
    empty = 'unlabelled' if labelled else 'labelled'
    with pytest.raises(ValueError, match=f'^SemiSupervisedDataset has no {empty} images: Memory is empty'):
        SemiSupervisedDataset(Memory(labelled), Memory(unlabelled))


def test_semi_supervised__unknown_type_keeps_its_own_error():
    with pytest.raises(KeyError, match='Absent is not in the'):
        SemiSupervisedDataset(dict(type='Absent'), Memory([0]))


def test_semi_supervised__classes_are_to_be_the_same():
    SemiSupervisedDataset(Memory([0], classes=['a', 'b']), Memory([0]))
    SemiSupervisedDataset(Memory([0]), Memory([0], classes=None))
    with pytest.raises(ValueError, match=r"classes \['a', 'b'\], but the unlabelled ones \['a', 'c'\]"):
        SemiSupervisedDataset(Memory([0]), Memory([0], classes=('a', 'c')))


def test_semi_supervised__overlapping_paths(folders):
    Image.new('RGB', (4, 4)).save(folders / 'labelled' / '9.png')
    (folders / 'list.txt').write_text('2\n3\n')
    both = files(folders, 'labelled', [LOAD, BRANCHES])
    labelled = LabelledSubset(
        files(folders, 'unlabelled/../labelled', [LOAD, pack]), 'labelled', file=f'{folders}/list.txt'
    )
    with pytest.raises(
        ValueError, match=r'^2 of the 2 labelled images are unlabelled, too: .*/2\.png for one; .*=True'
    ):
        SemiSupervisedDataset(labelled, both)
    rest = LabelledSubset(both, 'unlabelled', file=f'{folders}/list.txt')
    assert SemiSupervisedDataset(labelled, rest).num_unlabelled == 3


def test_semi_supervised__overlapping_places_in_memory(tmp_path):
    def part(name, root, per_class=2, tail=None, labels=(0, 1) * 20):
        data = Memory(list(labels), data_root=root)
        data = data if tail is None else LongTailedDataset(data, imbalance_factor=tail)
        return LabelledSubset(data, name, per_class=per_class)

    root = str(tmp_path)
    assert len(SemiSupervisedDataset(part('labelled', root), part('unlabelled', root))) == 40
    with pytest.raises(ValueError, match=r'^2 of the 4 labelled images are unlabelled, too: image \d+ of Memory'):
        SemiSupervisedDataset(part('labelled', root), part('unlabelled', root, per_class=1))
    with pytest.raises(ValueError, match='4 of the 4 labelled images'):
        SemiSupervisedDataset(part('labelled', root), Memory([0, 1] * 20, data_root=root))
    with pytest.raises(ValueError, match='labelled images are unlabelled, too'):
        SemiSupervisedDataset(part('labelled', root, tail=4), part('unlabelled', root, per_class=1, tail=4))
    SemiSupervisedDataset(part('labelled', root, tail=4), part('unlabelled', root, tail=4))
    # What may be other images cannot be compared.
    SemiSupervisedDataset(part('labelled', root), part('unlabelled', f'{root}/other', per_class=1))
    SemiSupervisedDataset(part('labelled', root), part('unlabelled', root, per_class=1, labels=(0, 1) * 21))
    SemiSupervisedDataset(Memory([0, 1]), Memory([0, 1]))
    data = Memory([0, 1])
    with pytest.raises(ValueError, match='2 of the 2 labelled images are unlabelled, too: image 0 of Memory'):
        SemiSupervisedDataset(data, data)


@pytest.mark.parametrize('damage', ['missing', 'empty', 'no image', 'cut'])
def test_semi_supervised__unreadable_unlabelled_image_is_skipped(folders, warned, damage):
    data = build(folders)
    path = folders / 'unlabelled' / '5.png'
    content = path.read_bytes()
    path.unlink()
    if damage != 'missing':
        path.write_bytes({'empty': b'', 'no image': b'text', 'cut': content[:30]}[damage])
    assert [value(data[index].weak) for index in (8, 9, 4)] == [104, 100, 100]
    data[9]
    assert len(warned) == 1 and f'unlabelled image {path} is skipped (' in warned[0]
    assert warned[0].endswith('; 1 unreadable so far in this process')
    (folders / 'unlabelled' / '2.png').write_bytes(b'text')
    assert value(data[6].weak) == 103
    assert warned[1].endswith('(it cannot be decoded); 2 unreadable so far in this process')
    path.write_bytes(content)  # may have been out of reach for a while only
    assert value(data[9].weak) == 105


def test_semi_supervised__training_data_go_on_past_unreadable_images(folders, warned):
    for name in (1, 2):
        (folders / 'unlabelled' / f'{name}.png').write_bytes(b'text')
    config = dict(sampler=dict(type='LabelledUnlabelledSampler', labelled=1, unlabelled=2), batch_size=3, num_workers=0)
    loader = Runner.build_dataloader(dict(config, dataset=build(folders)), seed=0)
    batches = [batch for _, batch in zip(range(3), loader)]
    found = sorted(value(item.weak) for batch in batches for item in batch[1:])
    assert found == [100, 103, 103, 103, 104, 105] and len(warned) == 2


def test_semi_supervised__too_many_unreadable_images(folders, warned):
    data = build(folders, max_unreadable=1)
    for name in (1, 2):
        (folders / 'unlabelled' / f'{name}.png').write_bytes(b'text')
    assert value(data[6].weak) == 103
    with pytest.raises(RuntimeError, match=r'2 unlabelled images cannot be read, more than max_unreadable=1.*1\.png'):
        data[5]


def test_semi_supervised__no_unlabelled_image_can_be_read(folders, warned):
    data = build(folders)
    for path in (folders / 'unlabelled').iterdir():
        path.write_bytes(b'text')
    with pytest.raises(RuntimeError, match='none of the 6 unlabelled images can be read'):
        data[4]
    assert len(warned) == 6


def test_semi_supervised__unreadable_labelled_image_raises(folders, warned):
    data = build(folders)
    (folders / 'labelled' / '2.png').write_bytes(b'text')
    with pytest.raises(AssertionError, match='failed to load image'):
        data[2]
    (folders / 'labelled' / '2.png').unlink()
    with pytest.raises(FileNotFoundError):
        data[2]
    assert not warned


def test_semi_supervised__broken_pipeline_raises_its_own_error(folders, warned):
    def broken(results):
        raise KeyError('gt_bboxes')

    data = build(folders, unlabelled=[LOAD, broken, BRANCHES])
    with pytest.raises(KeyError, match='gt_bboxes'):
        data[4]
    data = SemiSupervisedDataset(Memory([0]), Memory([0], pipeline=broken))
    with pytest.raises(KeyError, match='gt_bboxes'):
        data[1]
    assert not warned


def test_semi_supervised__images_are_decoded_as_in_the_pipeline(folders, warned):
    def broken(results):
        raise KeyError('gt_bboxes')

    for path in (folders / 'unlabelled').iterdir():
        Image.new('RGB', (4, 4)).save(path, format='PCX')  # which Pillow decodes and OpenCV does not
    load = dict(LOAD, imdecode_backend='pillow')
    with pytest.raises(KeyError, match='gt_bboxes'):
        build(folders, unlabelled=[load, broken, BRANCHES])[4]
    assert not warned
    with pytest.raises(RuntimeError, match='none of the 6 unlabelled images can be read'):
        build(folders)[4]


@pytest.mark.parametrize(
    ('last', 'message'),
    [
        (pack, r"has to end with MultiBranch, but gives \['inputs', 'data_samples'\]"),
        (lambda results: [results], 'has to end with MultiBranch, but gives list'),
        (dict(type='MultiBranch', strong=[pack]), r"needs a branch \"weak\" and .* has \['strong'\]"),
        (dict(type='MultiBranch', weak=[pack], other=[pack]), r"but has \['weak', 'other'\]"),
        (dict(BRANCHES, labelled=[pack]), "`name of a branch of unlabelled images` .* but got 'labelled'"),
        (dict(BRANCHES, keys=[pack]), "`name of a branch of unlabelled images` .* but got 'keys'"),
    ],
)
def test_semi_supervised__unlabelled_pipeline_has_to_split(folders, last, message):
    data = build(folders, unlabelled=[LOAD, last])
    with pytest.raises(ValueError, match=message):
        data[4]


def test_semi_supervised__several_strong_views(folders):
    item = build(folders, unlabelled=[LOAD, dict(BRANCHES, strong_2=[pack], raw=[pack])])[4]
    assert set(item.keys()) == {'weak', 'strong', 'strong_2', 'raw'}  # mmengine keeps no order


def test_semi_supervised__labelled_pipeline_has_to_pack(folders):
    with pytest.raises(
        ValueError, match=r"labelled images has to end with packed inputs, but gives \['weak', 'strong'"
    ):
        build(folders, labelled=[LOAD, BRANCHES])[0]


@pytest.mark.parametrize('number', [-1, 1.5, None])
def test_semi_supervised__bad_max_unreadable(number):
    with pytest.raises(ValueError, match='Expected argument `max_unreadable` to be an integer of at least 0'):
        SemiSupervisedDataset(Memory([0]), Memory([0], pipeline=views), max_unreadable=number)


def test_semi_supervised__labelled_images_may_be_unlabelled_too():
    pipeline = lambda index: dict(weak=dict(inputs=index), strong=dict(inputs=index))  # noqa: E731
    labelled, unlabelled = Memory([0, 1, 0]), Memory([0, 1, 0], pipeline=pipeline)
    labelled.data_root = unlabelled.data_root = 'data'
    with pytest.raises(ValueError, match='3 of the 3 .* set labelled_among_unlabelled=True'):
        SemiSupervisedDataset(labelled, unlabelled)
    dataset = SemiSupervisedDataset(labelled, unlabelled, labelled_among_unlabelled=True)
    assert (dataset.num_labelled, dataset.num_unlabelled) == (3, 3)
    assert dataset[0].labelled == dict(inputs=0) and dataset[3].weak == dict(inputs=0)


def test_semi_supervised__bad_flag():
    with pytest.raises(ValueError, match="`labelled_among_unlabelled` to be True or False, but got 'yes'"):
        SemiSupervisedDataset(Memory([0]), Memory([1]), labelled_among_unlabelled='yes')
