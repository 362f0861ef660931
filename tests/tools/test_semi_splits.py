import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from sar_mm.datasets import LabeledSubset, SemiSupervisedDataset, draw_per_class

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'semi_splits.py'


@pytest.fixture
def run(run_tool, tmp_path, monkeypatch):
    """Run the tool in its folder; return what it wrote and all it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, out='out', code=0):
        printed = run_tool(TOOL, *arguments, '--out', out, code=code)
        assert (tmp_path / out).exists() == (code == 0)  # nothing is written on error
        if code:
            return printed
        lists = [(tmp_path / out / f'{name}.txt').read_text().splitlines() for name in ('labeled', 'unlabeled')]
        return (*lists, printed)

    return run


def config(folder, dataset, scope):
    text = f'default_scope = {scope!r}\ntrain_dataloader = dict(batch_size=2, dataset={dataset!r})\n'
    (folder / 'config.py').write_text(text)
    return 'config.py'


NAMES = [f'{town}/{town}_{index:02d}' for town in ('aachen', 'bonn') for index in range(20)]


@pytest.fixture
def segmentation(tmp_path):
    """40 label maps as in Cityscapes, of class 0 and one other; class 3 is in one of them only. No image is read."""
    pytest.importorskip('mmseg.datasets')
    for index, name in enumerate(NAMES):
        label = 3 if index == 11 else 1 + index % 2
        for kind, suffix in (('leftImg8bit', '_leftImg8bit.png'), ('gtFine', '_gtFine_labelTrainIds.png')):
            path = tmp_path / 'cityscapes' / kind / 'train' / f'{name}{suffix}'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array([[0, label], [255, 9]], dtype=np.uint8)).save(path)
    dataset = dict(
        type='BaseSegDataset',
        data_root='cityscapes',
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        img_suffix='_leftImg8bit.png',
        seg_map_suffix='_gtFine_labelTrainIds.png',
        metainfo=dict(classes=['road', 'car', 'tree', 'bus', 'train']),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
    )
    return config(tmp_path, dataset, 'mmseg'), dataset


@pytest.fixture
def classification(tmp_path):
    """Files of three classes, 8, 6 and 4 of them; the names are numbers. No image is read."""
    pytest.importorskip('mmpretrain.datasets')
    labels = [0] * 8 + [1] * 6 + [2] * 4
    for index, label in enumerate(labels):
        path = tmp_path / 'data' / 'img' / f'class {label}' / f'{index + 100}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    dataset = dict(type='CustomDataset', data_root='data', data_prefix='img', pipeline=[])
    return config(tmp_path, dataset, 'mmpretrain'), dataset, labels


@pytest.fixture
def memory(tmp_path):
    """A small Fashion-MNIST of 30 images."""
    pytest.importorskip('mmpretrain.datasets')
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 3)).astype(np.uint8)
    folder = tmp_path / 'fashion'
    folder.mkdir()
    for name, content in (('images-idx3', np.zeros((30, 28, 28), np.uint8)), ('labels-idx1', labels)):
        head = bytes([0, 0, 8, content.ndim]) + np.array(content.shape, '>i4').tobytes()
        for split in ('train', 't10k'):
            (folder / f'{split}-{name}-ubyte').write_bytes(head + content.tobytes())
    dataset = dict(type='FashionMNIST', data_root='fashion', split='train', pipeline=[])
    return config(tmp_path, dataset, 'mmpretrain'), dataset, labels


@pytest.mark.parametrize(('options', 'number'), [(('--fraction', '1/8'), 5), (('--count', '4'), 4)])
def test_semi_splits__segmentation_shows_every_class(run, segmentation, options, number):
    labeled, unlabeled, printed = run(segmentation[0], *options)
    assert len(labeled) == number and sorted(labeled + unlabeled) == NAMES
    indices = [NAMES.index(name) for name in labeled]
    assert 11 in indices and {index % 2 for index in indices if index != 11} == {0, 1}
    assert labeled == sorted(labeled) and unlabeled == sorted(unlabeled)
    assert f'{number} labeled and {40 - number} unlabeled images' in printed and 'written to out' in printed
    rows = [[cell.strip() for cell in line.split('│')[1:-1]] for line in printed.splitlines() if '│' in line]
    assert [row[1] for row in rows] == ['road', 'car', 'tree', 'bus', 'train']
    assert [int(row[2]) for row in rows][::3] == [number, 1] and rows[4][2] == '0'
    assert 'warning: no labeled image shows class 4 (train)' in printed
    assert 'have the values 0, 1, 2, 3, 9' not in printed  # more than classes: 255 stands for none of them


def test_semi_splits__loaders_in_other_transforms(run, segmentation, tmp_path):
    name, dataset = segmentation
    plain = run(name, '--count', 4)[:2]
    nested = dict(type='sar_mm.CheckedLoading', transforms=dataset['pipeline'][:2])
    config(tmp_path, dict(dataset, pipeline=[nested, dict(type='PackSegInputs')]), 'mmseg')
    assert run(name, '--count', 4, out='nested')[:2] == plain


def test_semi_splits__masks_of_0_and_255(run, segmentation, tmp_path):
    name, dataset = segmentation
    for path in (tmp_path / 'cityscapes/gtFine').rglob('*.png'):
        Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(path)
    config(tmp_path, dict(dataset, metainfo=dict(classes=['wall', 'crack'])), 'mmseg')
    printed = run(name, '--count', 4)[2]
    assert 'warning: no labeled image shows class 1 (crack)' in printed
    assert 'the label maps have the values 0, 255, and 255 is the ignored label' in printed


def test_semi_splits__segmentation_lists_are_what_mmseg_reads(run, segmentation, tmp_path):
    labeled, unlabeled, _ = run(segmentation[0], '--fraction', '0.25')
    parts = [
        DATASETS.build(dict(segmentation[1], type='mmseg.BaseSegDataset', ann_file=f'../out/{name}.txt', pipeline=[]))
        for name in ('labeled', 'unlabeled')
    ]
    data = SemiSupervisedDataset(*parts)
    assert (data.num_labeled, data.num_unlabeled) == (10, 30)
    assert all(Path(data.get_data_info(index)['img_path']).is_file() for index in range(40))


def test_semi_splits__seed_decides(run, segmentation):
    first, same, other = (
        run(segmentation[0], '--count', '10', '--seed', seed, out=out)[:2]
        for seed, out in ((1, 'first'), (1, 'same'), (2, 'other'))
    )
    assert first == same and first[0] != other[0]


@pytest.mark.parametrize(
    'form',
    [
        'leftImg8bit/train/{0}_leftImg8bit.png gtFine/train/{0}_gtFine_labelTrainIds.png',  # UniMatch
        'leftImg8bit/train/{0}_leftImg8bit.png\tgtFine/train/{0}_gtFine_labelTrainIds.png',
        './cityscapes/leftImg8bit/train/{0}_leftImg8bit.png',
        '{0}',
        '{0}_leftImg8bit',
    ],
)
def test_semi_splits__published_lists_of_segmentation(run, segmentation, tmp_path, form):
    chosen = [NAMES[index] for index in (30, 2, 5)]
    (tmp_path / 'list.txt').write_text('\n'.join(form.format(name) for name in chosen) + '\n\n')
    labeled, unlabeled, printed = run(segmentation[0], '--labeled-list', 'list.txt')
    assert labeled == sorted(chosen) and unlabeled == [name for name in NAMES if name not in chosen]
    assert '3 labeled and 37 unlabeled images' in printed
    (tmp_path / 'rest.txt').write_text('\n'.join(form.format(name) for name in NAMES[10:15]))
    lists = ('--labeled-list', 'list.txt', '--unlabeled-list', 'rest.txt')
    assert run(segmentation[0], *lists, out='two')[1] == NAMES[10:15]
    (tmp_path / 'list.txt').write_text('\n'.join(chosen), encoding='utf-8-sig')
    assert run(segmentation[0], '--labeled-list', 'list.txt', out='marked')[0] == sorted(chosen)


def test_semi_splits__classification_with_files(run, classification, tmp_path):
    name, dataset, labels = classification
    labeled, unlabeled, printed = run(name, '--per-class', 2)
    everything = [f'class {label}/{index + 100}.png' for index, label in enumerate(labels)]
    assert [int(line.rsplit(' ', 1)[1]) for line in labeled] == [0, 0, 1, 1, 2, 2]
    assert sorted([line.rsplit(' ', 1)[0] for line in labeled] + unlabeled) == everything
    assert '6 labeled and 12 unlabeled images' in printed
    options = dict(dataset, type='mmpretrain.CustomDataset')
    first = DATASETS.build(dict(options, ann_file='../out/labeled.txt'))
    second = DATASETS.build(dict(options, ann_file='../out/unlabeled.txt', with_label=False))
    data = SemiSupervisedDataset(first, second)
    assert (data.num_labeled, data.num_unlabeled) == (6, 12)
    assert all(Path(data.get_data_info(index)['img_path']).is_file() for index in range(18))
    assert [line.rsplit(' ', 1)[1] for line in run(name, '--fraction', '1/4', out='b')[0]] == ['0', '0', '1', '1', '2']
    assert {line.rsplit(' ', 1)[1] for line in run(name, '--count', 3, out='c')[0]} == {'0', '1', '2'}


@pytest.mark.parametrize('lines', ['103.png\n110\n', '103 0\n110 1', 'class 0/103.png 0\nclass 1/110.png 1', '3\n10'])
def test_semi_splits__published_lists_of_classification(run, classification, tmp_path, lines):
    (tmp_path / 'list.txt').write_text(lines)
    labeled, unlabeled, _ = run(classification[0], '--labeled-list', 'list.txt')
    assert labeled == ['class 0/103.png 0', 'class 1/110.png 1'] and len(unlabeled) == 16


def test_semi_splits__images_in_memory(run, memory):
    name, dataset, labels = memory
    labeled, unlabeled, printed = run(name, '--per-class', 1)
    assert list(map(int, labeled)) == draw_per_class(labels, 1, 10).tolist()
    assert sorted(map(int, labeled + unlabeled)) == list(range(30))
    assert 'Ankle boot' in printed
    built = DATASETS.build(dict(dataset, type='mmpretrain.FashionMNIST'))
    parts = [LabeledSubset(built, part, file='out/labeled.txt') for part in ('labeled', 'unlabeled')]
    assert SemiSupervisedDataset(*parts).labeled.metainfo['class_counts'] == (1,) * 10
    assert parts[1].indices.tolist() == list(map(int, unlabeled))


@pytest.mark.parametrize('text', [json.dumps(dict(distribution=[1], label=[7, 3])), '7\n3\n'])
def test_semi_splits__published_lists_of_images_in_memory(run, memory, tmp_path, text):
    (tmp_path / 'list').write_text(text)
    labeled, unlabeled, _ = run(memory[0], '--labeled-list', 'list')
    assert labeled == ['3', '7'] and len(unlabeled) == 28


def test_semi_splits__long_tailed_view(run, memory, tmp_path):
    view = dict(type='sar_mm.LongTailedDataset', imbalance_factor=3, dataset=memory[1])
    labeled, unlabeled, printed = run(config(tmp_path, view, 'mmpretrain'), '--fraction', 0.4)
    assert len(labeled) == 10 and len(unlabeled) == 5
    assert sorted(map(int, labeled + unlabeled)) == list(range(15))  # indices into the view


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        (['aachen/aachen_00', 'aachen/absent', 'x'], 'are not in the data set: aachen/absent, x'),
        (['chen/aachen_00'], 'are not in the data set: chen/aachen_00'),
        (['aachen/aachen_00', 'aachen_00_leftImg8bit.png'], '2 of the 2 lines in list.txt come more than once'),
        (NAMES, 'all 40 images are labeled, none is left'),
        (['3', '40'], 'list.txt has 1 indices of 40 or more: 40'),
        (['3', '3'], 'list.txt lists 1 indices twice'),
        (['{"label": 3}'], 'list.txt is not a text file with one index per line'),
        ([], 'list.txt is not a text file with one index per line'),
    ],
)
def test_semi_splits__bad_lists(run, segmentation, tmp_path, lines, message):
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    assert message in run(segmentation[0], '--labeled-list', 'list.txt', code=2)


def test_semi_splits__line_that_may_be_several_images(run, classification, tmp_path):
    (tmp_path / 'data' / 'img' / 'class 1' / '100.png').touch()
    (tmp_path / 'list.txt').write_text('100\n101\n')
    message = run(classification[0], '--labeled-list', 'list.txt', code=2)
    assert '1 of the 2 lines in list.txt may be several images: 100' in message


def test_semi_splits__overlapping_lists(run, segmentation, tmp_path):
    (tmp_path / 'first.txt').write_text('\n'.join(NAMES[:5]))
    (tmp_path / 'second.txt').write_text('\n'.join(NAMES[3:9]))
    lists = ('--labeled-list', 'first.txt', '--unlabeled-list', 'second.txt')
    message = run(segmentation[0], *lists, code=2)
    assert '2 images are in both lists: aachen/aachen_03, aachen/aachen_04' in message


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--per-class', 2), '--per-class is for classification'),
        (('--count', 2), '2 images are too few to show all 4 classes'),
        (('--count', 41), 'there are 40 images, but 41 are to be drawn'),
        (('--count', 40), 'all 40 images are labeled'),
        (('--count', 0), 'argument --count: 0 is no integer of at least 1'),
        (('--fraction', '3/2'), 'argument --fraction: 3/2 is no number in (0, 1), as 1/16 or 0.1'),
        (('--fraction', '1/0'), 'argument --fraction: 1/0 is no number'),
        (('--labeled-list', 'absent.txt'), 'absent.txt'),
        (('--count', 4, '--unlabeled-list', 'x'), '--unlabeled-list goes with --labeled-list'),
        (('--count', 4, '--seed', -1), '--seed is to be at least 0'),
        ((), 'one of the arguments --per-class --fraction --count --labeled-list is required'),
    ],
)
def test_semi_splits__bad_options(run, segmentation, options, message):
    assert message in run(segmentation[0], *options, code=2)


def test_semi_splits__too_few_images_of_a_class(run, classification):
    assert 'class 2 (class 2) has 4 images, but 5 are to be drawn' in run(classification[0], '--per-class', 5, code=2)


def test_semi_splits__unsuitable_data_sets(run, segmentation, tmp_path):
    both = dict(type='ConcatDataset', datasets=[segmentation[1], dict(segmentation[1])])
    message = run(config(tmp_path, both, 'mmseg'), '--count', 5, code=2)
    assert 'ConcatDataset has no data_prefix=dict(img_path=...)' in message
    half = dict(segmentation[1], pipeline=[])
    message = run(config(tmp_path, half, 'mmseg'), '--count', 5, code=2)
    assert 'BaseSegDataset has no labels of images to count' in message
    semi = dict(type='SemiSupervisedDataset', labeled=segmentation[1], unlabeled=segmentation[1], lazy_init=True)
    message = run(config(tmp_path, semi, 'mmseg'), '--count', 5, code=2)
    assert 'the config is one of semi-supervised training' in message


def test_semi_splits__as_a_command(run_process, tmp_path):
    output = run_process(TOOL, 'absent.py', '--out', 'out', '--count', 3, folder=tmp_path, code=2)
    assert 'error: there is no config absent.py' in output and 'Traceback' not in output
