"""Semi-supervised data sets: what they hold, and which arguments and pipelines they refuse."""

import copy

import pytest
from in_memory import images, long_tailed, part, repeated, shuffled
from labeled_and_unlabeled import (
    BRANCHES,
    CLASSES,
    LOAD,
    Memory,
    build,
    config,
    damage,
    files,
    pack,
    value,
)
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.runner import Runner
from PIL import Image

from sar_mm.datasets import LabeledSubset, SemiSupervisedDataset, class_counts


def test_semi_supervised__labeled_images_come_first(folders):
    data = build(folders)
    assert (data.num_labeled, data.num_unlabeled, len(data)) == (4, 6, 10)
    items = [data[index] for index in range(10)]
    assert [set(item.keys()) for item in items] == [{'labeled'}] * 4 + [{'weak', 'strong'}] * 6
    assert [value(item.labeled) for item in items[:4]] == [0, 1, 2, 3]
    assert [value(item.weak) for item in items[4:]] == [100, 101, 102, 103, 104, 105]
    assert [value(item.strong) for item in items[4:]] == [155, 154, 153, 152, 151, 150]
    assert data[-1].weak['data_samples'].path == str(folders / 'unlabeled' / '5.png')
    assert data.get_data_info(3)['img_path'].endswith('labeled/3.png')
    assert data.get_data_info(4)['img_path'].endswith('unlabeled/0.png')
    with pytest.raises(IndexError):
        data[10]
    assert data.metainfo == CLASSES and class_counts(data) == [2, 2] and not hasattr(data, 'get_cat_ids')


WORKERS = [(pseudo_collate, 0, ()), (default_collate, 0, (1, 2)), (default_collate, 1, (5,))]


@pytest.mark.parametrize(('collate', 'num_workers', 'unreadable'), WORKERS)
def test_semi_supervised__works_in_a_dataloader(folders, collate, num_workers, unreadable):
    damage(folders, *unreadable)
    loader_config = dict(
        dataset=config(folders),
        sampler=dict(type='LabeledUnlabeledSampler', labeled=1, unlabeled=2),
        batch_size=3,
        num_workers=num_workers,
        collate_fn=dict(type=collate.__name__),
    )
    loader = Runner.build_dataloader(loader_config, seed=0)
    batches = [batch for _, batch in zip(range(6), loader)]  # which collate functions leave as lists
    assert all([set(item.keys()) for item in batch] == [{'labeled'}] + 2 * [{'weak', 'strong'}] for batch in batches)
    found = sorted(value(item.weak) for batch in batches[:3] for item in batch[1:])
    assert found == sorted(next(100 + n % 6 for n in range(i, i + 6) if n % 6 not in unreadable) for i in range(6))


@pytest.mark.parametrize('name', ['labeled', 'unlabeled'])
@pytest.mark.parametrize('is_missing', [False, True])
def test_semi_supervised__empty_or_missing_folder(folders, name, is_missing):
    for path in (folders / name).iterdir():
        path.unlink()
    if is_missing:
        (folders / name).rmdir()
    missing = f'^the {name} images of SemiSupervisedDataset cannot be loaded from .*/{name}: '
    empty = f'^SemiSupervisedDataset has no {name} images: .*/{name} is empty'
    with pytest.raises(ValueError, match=missing if is_missing else empty):
        build(folders)


def test_semi_supervised__empty_folder_of_mmseg(folders):
    pytest.importorskip('mmseg.datasets')
    prefix = dict(img_path='unlabeled', seg_map_path='none')
    unlabeled = dict(type='mmseg.BaseSegDataset', data_root=str(folders), data_prefix=prefix, img_suffix='.tif')
    with pytest.raises(ValueError, match='the unlabeled images .* from .*/unlabeled: there is no such image'):
        SemiSupervisedDataset(Memory(), unlabeled)
    with pytest.raises(ValueError, match="the unlabeled images .* with ann_file='absent.txt': Failed to load"):
        SemiSupervisedDataset(Memory(), dict(unlabeled, ann_file='absent.txt'))


@pytest.mark.parametrize(
    ('labeled', 'unlabeled', 'options', 'error', 'message'),
    [
        (Memory([]), Memory(), {}, ValueError, '^SemiSupervisedDataset has no labeled images: Memory is empty'),
        (Memory(), Memory([]), {}, ValueError, '^SemiSupervisedDataset has no unlabeled images: Memory is empty'),
        (dict(type='Absent'), Memory(), {}, KeyError, 'Absent is not in the'),
        (Memory(), Memory(classes='ac'), {}, ValueError, r"classes \['a', 'b'\], but the unlabeled ones \['a', 'c'\]"),
        (Memory(), dict(ann_file='a.txt'), {}, ValueError, '`unlabeled` to be .* with a type: labeled is no config'),
        (Memory(), Memory(), dict(max_unreadable=-1), ValueError, '`max_unreadable` to be an integer of at least 0'),
        (Memory(), Memory(), dict(labeled_among_unlabeled='yes'), ValueError, "to be True or False, but got 'yes'"),
    ],
)
def test_semi_supervised__bad_arguments(labeled, unlabeled, options, error, message):
    with pytest.raises(error, match=message):
        SemiSupervisedDataset(labeled, unlabeled, **options)


@pytest.mark.parametrize('wrapped', [False, True])
def test_semi_supervised__a_config_without_a_type_inherits_from_labeled(folders, wrapped):
    labeled = files(folders, 'labeled', [LOAD, pack])
    own = dict(data_prefix=dict(img_path='unlabeled'), pipeline=[LOAD, BRANCHES])
    if wrapped:
        labeled, own = dict(type='RepeatDataset', dataset=labeled, times=2), dict(dataset=own, times=3)
    before = copy.deepcopy(labeled)
    dataset = SemiSupervisedDataset(labeled, own)
    number = 2 if wrapped else 1
    assert (dataset.num_labeled, dataset.num_unlabeled) == (4 * number, 6 * (number + wrapped))
    assert dataset.unlabeled.metainfo['classes'] == CLASSES['classes']
    assert value(dataset[dataset.num_labeled].weak) == 100
    assert labeled == before


def test_semi_supervised__classes_may_be_of_another_type_or_unknown():
    assert all(len(SemiSupervisedDataset(Memory(), Memory(classes=classes))) == 6 for classes in (['a', 'b'], None))


def test_semi_supervised__overlapping_paths(folders):
    Image.new('RGB', (4, 4)).save(folders / 'labeled' / '9.png')
    (folders / 'list.txt').write_text('2\n3\n')
    both = files(folders, 'labeled', [LOAD, BRANCHES])
    inner = files(folders, 'unlabeled/../labeled', [LOAD, pack])
    labeled = LabeledSubset(inner, 'labeled', file=f'{folders}/list.txt')
    with pytest.raises(ValueError, match=r'^2 of the 2 labeled images are unlabeled, too: .*/2\.png .*=True'):
        SemiSupervisedDataset(labeled, both)
    lazy = SemiSupervisedDataset(dict(both, lazy_init=True), dict(both, lazy_init=True), lazy_init=True)
    with pytest.raises(ValueError, match='5 of the 5 labeled images are unlabeled, too'):
        len(lazy)
    rest = LabeledSubset(both, 'unlabeled', file=f'{folders}/list.txt')
    assert SemiSupervisedDataset(labeled, rest).num_unlabeled == 3


def test_semi_supervised__overlapping_places_in_memory(tmp_path):
    def overlap(labeled, unlabeled):
        """The start of the error, or nothing."""
        try:
            SemiSupervisedDataset(labeled, unlabeled)
        except ValueError as error:
            return str(error).partition(' are unlabeled, too: image ')[0]
        return ''

    def own(labels=42, root=tmp_path):
        return images(labels=shuffled([labels // 3] * 3), data_root=str(root))

    labeled = part('labeled', own(), 2)
    assert overlap(labeled, part('unlabeled', own(), 2)) == ''
    assert overlap(labeled, part('unlabeled', own(), 1)) == '3 of the 6 labeled images'
    assert overlap(labeled, own()) == '6 of the 6 labeled images'
    assert overlap(repeated(labeled), own()) == '6 of the 18 labeled images'  # in wrappers, too
    tail = [part(name, long_tailed(own()), number) for name, number in (('labeled', 2), ('unlabeled', 1))]
    assert overlap(*tail) == '3 of the 6 labeled images'
    assert overlap(tail[0], part('unlabeled', long_tailed(own()), 2)) == ''
    # What may be other images cannot be compared.
    assert overlap(labeled, part('unlabeled', own(root=tmp_path / 'other'), 1)) == ''
    assert overlap(labeled, part('unlabeled', own(45), 1)) == ''
    assert overlap(Memory(), Memory()) == ''
    data = Memory()
    assert overlap(data, data) == '3 of the 3 labeled images'
    assert len(SemiSupervisedDataset(data, data, labeled_among_unlabeled=True)) == 6


@pytest.mark.parametrize(
    ('last', 'message'),
    [
        (pack, r"has to end with MultiBranch, but gives \['inputs', 'data_samples'\]"),
        (lambda results: [results], 'has to end with MultiBranch, but gives list'),
        (dict(type='MultiBranch', strong=[pack]), r"needs a branch \"weak\" and .* has \['strong'\]"),
        (dict(type='MultiBranch', weak=[pack], other=[pack]), r"but has \['weak', 'other'\]"),
        (dict(BRANCHES, labeled=[pack]), "`name of a branch of unlabeled images` .* but got 'labeled'"),
        (dict(BRANCHES, keys=[pack]), "`name of a branch of unlabeled images` .* but got 'keys'"),
    ],
)
def test_semi_supervised__unlabeled_pipeline_has_to_split(folders, last, message):
    with pytest.raises(ValueError, match=message):
        build(folders, unlabeled=[LOAD, last])[4]


def test_semi_supervised__labeled_pipeline_has_to_pack(folders):
    data = build(folders, labeled=[LOAD, BRANCHES], unlabeled=[LOAD, dict(BRANCHES, strong_2=[pack], raw=[pack])])
    with pytest.raises(ValueError, match=r"packed inputs, but gives \['weak', 'strong'"):
        data[0]
    assert set(data[4].keys()) == {'weak', 'strong', 'strong_2', 'raw'}  # mmengine keeps no order
