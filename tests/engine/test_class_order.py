import json

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from sar_mm.checks import UsageError
from sar_mm.engine import class_order
from sar_mm.engine.class_order import check_class_order, check_order_of_checkpoint, check_order_of_counts
from sar_mm.engine.hooks import ClassCountsHook

PLACE = 'train_dataloader.dataset'
FOLDERS = ['car', 'cat', 'plane']
OTHER = ['plane', 'car', 'cat']


@pytest.fixture
def build(tmp_path):
    """Build a CustomDataset of mmpretrain with two images in each of the folders."""
    pytest.importorskip('mmpretrain.datasets')
    for folder in FOLDERS:
        (tmp_path / 'images' / folder).mkdir(parents=True)
        for index in range(2):
            path = tmp_path / 'images' / folder / f'{index}.png'
            Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(path)

    def build(**options):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            cfg = dict(type='mmpretrain.CustomDataset', data_prefix=str(tmp_path / 'images'), pipeline=[])
            return DATASETS.build(dict(cfg, **options))

    return build


WRAPPERS = {
    '': lambda data: data,
    '.dataset': lambda data: RepeatDataset(data, times=2),
    '.dataset.dataset': lambda data: DATASETS.build(
        dict(type='LongTailedDataset', dataset=ClassBalancedDataset(data, oversample_thr=0.1), imbalance_factor=1)
    ),
    '.datasets.0': lambda data: ConcatDataset([data, data]),
    '.dataset ': lambda data: DATASETS.build(dict(type='LongTailedDataset', dataset=data, imbalance_factor=1)),
    '.labeled.dataset': lambda data: DATASETS.build(
        dict(
            type='SemiSupervisedDataset',
            labeled=dict(type='LabeledSubset', part='labeled', per_class=1, dataset=data),
            unlabeled=dict(type='LabeledSubset', part='unlabeled', per_class=1, dataset=data),
        )
    ),
}


@pytest.mark.parametrize('lazy_init', [False, True])
@pytest.mark.parametrize('place', WRAPPERS)
def test_check_class_order__of_folders(build, place, lazy_init):
    data = build(classes=OTHER, lazy_init=lazy_init)
    message = (
        rf'^{PLACE}{place.strip()}: the classes are in another order than the folders that they name: label 0 is car '
        r"there, plane here\. .*: set classes=\['car', 'cat', 'plane'\]"
    )
    with pytest.raises(UsageError, match=message):
        check_class_order({PLACE: WRAPPERS[place](data)})
    check_class_order({PLACE: WRAPPERS[place](build(classes=FOLDERS, lazy_init=lazy_init))})


def test_check_class_order__the_list_that_it_prints_is_the_one_of_the_labels(build):
    data = build()
    assert [data.get_data_info(index)['gt_label'] for index in (0, 2, 4)] == [0, 1, 2]
    assert [data.get_data_info(index)['img_path'].split('/')[-2] for index in (0, 2, 4)] == FOLDERS


def test_check_class_order__what_is_right(build, tmp_path):
    (tmp_path / 'list.txt').write_text('plane/0.png 0\ncar/0.png 1\ncat/0.png 2\n')
    listed = build(classes=OTHER, ann_file=str(tmp_path / 'list.txt'))
    for data in (
        build(),  # the names of the folders
        build(classes=['vehicle', 'animal', 'aircraft']),  # words for folders such as n01440764
        build(classes=['cat', 'animal', 'car']),  # other names than those of the folders
        build(with_label=False, metainfo=dict(classes=OTHER)),
        listed,
    ):
        check_class_order({PLACE: data})
    # Labels of unlabeled images are not looked at.
    rest = build(classes=OTHER)
    rest = DATASETS.build(dict(type='LabeledSubset', part='unlabeled', per_class=1, dataset=rest))
    semi = dict(type='SemiSupervisedDataset', labeled=listed, unlabeled=rest, labeled_among_unlabeled=True)
    check_class_order({PLACE: DATASETS.build(semi)})


def test_check_class_order__of_labels_as_published(tmp_path):
    datasets = pytest.importorskip('mmpretrain.datasets')

    class Digits(datasets.MNIST):
        """A data set of one digit, whose images need no download."""

        def full_init(self):
            pass

    class Reordered(Digits):
        def load_data_list(self):
            return []

    right = list(datasets.MNIST.METAINFO['classes'])
    options = dict(data_root=str(tmp_path), pipeline=[], lazy_init=True)
    with pytest.raises(UsageError, match=r'than the labels of Digits: label 0 is 0 - zero there, 9 - nine here'):
        check_class_order({PLACE: Digits(classes=right[::-1], **options)})
    check_class_order({PLACE: Digits(**options)})
    check_class_order({PLACE: Digits(classes=[f'digit {label}' for label in range(10)], **options)})
    check_class_order({PLACE: Reordered(classes=right[::-1], **options)})  # which may know what it does
    cifar = datasets.CIFAR10(classes=sorted(datasets.CIFAR10.METAINFO['classes'])[::-1], **options)
    cifar.full_init = lambda: None
    with pytest.raises(UsageError, match='than the labels of CIFAR10: label 0 is airplane there, truck here'):
        check_class_order({PLACE: cifar})


def test_check_class_order__of_lists_that_number_other_classes(tmp_path):
    datasets = pytest.importorskip('mmpretrain.datasets')
    (tmp_path / 'train.txt').write_text('0.png 0\n')
    right = list(datasets.ImageNet.METAINFO['classes'])
    data = datasets.ImageNet(data_root=str(tmp_path), ann_file='train.txt', classes=right[::-1], pipeline=[])
    check_class_order({PLACE: data})


def test_check_class_order__of_folders_that_number_other_classes(build, monkeypatch):
    datasets = pytest.importorskip('mmpretrain.datasets')
    monkeypatch.setattr(datasets.ImageNet, 'METAINFO', dict(classes=OTHER))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cfg = dict(type='mmpretrain.ImageNet', data_prefix=build().img_prefix, pipeline=[])
        check_class_order({PLACE: DATASETS.build(dict(cfg, classes=FOLDERS))})


def test_check_class_order__of_two_data_sets(build, tmp_path):
    (tmp_path / 'list.txt').write_text('plane/0.png 0\n')
    listed = build(classes=OTHER, ann_file=str(tmp_path / 'list.txt'))
    with pytest.raises(UsageError, match=r'^val_dataloader.dataset has the classes of train.* in another order'):
        check_class_order({PLACE: build(), 'val_dataloader.dataset': listed})
    # ConcatDataset can be told not to compare names.
    joined = ConcatDataset([build(), listed], ignore_keys=['classes'])
    with pytest.raises(UsageError, match=rf'^{PLACE}.datasets.1 has the classes of {PLACE}.datasets.0'):
        check_class_order({PLACE: joined})
    check_class_order({PLACE: build(), 'val_dataloader.dataset': build(classes=['a', 'b', 'c'])})


def test_check_class_order__of_other_names_warns(build, tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(class_order, 'print_log', lambda message, *args: messages.append(message))
    (tmp_path / 'list.txt').write_text('plane/0.png 0\n')
    names = [*FOLDERS[:-1], 'zebra']
    listed = build(classes=names, ann_file=str(tmp_path / 'list.txt'))
    check_class_order({PLACE: build(), 'val_dataloader.dataset': listed})
    assert len(messages) == 1
    assert f'have {len(FOLDERS)} classes each, but of other names: zebra here, {FOLDERS[-1]} there' in messages[0]
    check_class_order({PLACE: build(), 'val_dataloader.dataset': build()})
    assert len(messages) == 1


def segmentation(folder, **metainfo):
    with DefaultScope.overwrite_default_scope('mmseg'):
        cfg = dict(type='mmseg.PascalVOCDataset', ann_file='', data_prefix=dict(img_path=str(folder)))
        pytest.importorskip('mmseg.datasets')
        (folder / 'list.txt').write_text('a\n')
        cfg.update(ann_file=str(folder / 'list.txt'), metainfo=metainfo, lazy_init=True)
        return DATASETS.build(cfg)


def test_check_class_order__of_label_maps(tmp_path):
    own = segmentation(tmp_path)
    names = list(own.metainfo['classes'])
    turned = names[::-1]
    other = segmentation(tmp_path, classes=turned)
    assert other.label_map[0] == len(names) - 1  # labels follow the names: no error by itself
    check_class_order({PLACE: other})
    with pytest.raises(UsageError, match='label 0 is background there, tvmonitor here'):
        check_class_order({PLACE: own, 'val_dataloader.dataset': other})
    checkpoint = dict(meta=dict(dataset_meta=dict(classes=tuple(names))))
    with pytest.raises(UsageError, match=rf'^{PLACE} has the classes of the checkpoint .*classes=\[.background'):
        check_order_of_checkpoint(checkpoint, other, PLACE)
    for fitting in (checkpoint, {}, dict(meta={}), dict(meta=dict(dataset_meta=dict(classes=names[:2])))):
        check_order_of_checkpoint(fitting, own, PLACE)


def test_check_order_of_checkpoint__names_that_were_corrected(build):
    """The weights are those of the folders, in which nothing has changed."""
    check_order_of_checkpoint(dict(meta=dict(dataset_meta=dict(classes=OTHER))), build(classes=FOLDERS), PLACE)


def test_check_order_of_counts(build, tmp_path):
    path = tmp_path / 'counts.json'
    hooks = [ClassCountsHook(file=str(path), kind='images'), ClassCountsHook()]
    path.write_text(json.dumps(dict(classes=OTHER, images=[1, 2, 3])), encoding='utf-8-sig')
    message = r"counts.json'\) has the classes of .* label 0 is plane there, car here.*: write the counts again"
    with pytest.raises(UsageError, match=message):
        check_order_of_counts(hooks, {PLACE: build()})
    for classes in (FOLDERS, ['a', 'b', 'c']):
        path.write_text(json.dumps(dict(classes=classes, images=[1, 2, 3])))
        check_order_of_counts(hooks, {PLACE: build()})
    path.unlink()  # the hook reads it only where a module or a metric asks for counts
    check_order_of_counts(hooks, {PLACE: build()})


def test_byte_order_mark__of_lists_that_toolboxes_read(build, tmp_path):
    path = tmp_path / 'list.txt'
    path.write_text('car/0.png 0\n', encoding='utf-8-sig')
    with pytest.raises(UsageError, match=rf'^{PLACE}.ann_file=.*list.txt. starts with a byte order mark'):
        check_class_order({PLACE: build(ann_file=str(path), classes=FOLDERS)})
    path.write_text('\n'.join(FOLDERS), encoding='utf-8-sig')
    with pytest.raises(UsageError, match='the file of class names starts with a byte order mark'):
        check_class_order({PLACE: build(classes=str(path))})
    path.write_text('car/0.png 0\n')
    check_class_order({PLACE: build(ann_file=str(path), classes=FOLDERS)})
