import random

import numpy as np
import pytest
import torch

from sar_mm.datasets import LongTailedDataset, class_counts, long_tailed_counts
from sar_mm.registry import DATASETS


class Images:
    """A data set whose images are their own index."""

    def __init__(self, labels, classes=None):
        self.labels = labels
        self.metainfo = dict(classes=classes or tuple(f'c{k}' for k in range(max(labels) + 1)), palette=[1])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return dict(inputs=torch.tensor(index), label=self.labels[index])

    def get_data_info(self, index):
        return dict(gt_label=self.labels[index], img_path=f'{index}.png')

    def get_cat_ids(self, index):
        return [self.labels[index]]


def shuffled(sizes, seed=0):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).permutation(labels).tolist()


def shown(view):
    """The original indices of the images, and those of each class."""
    indices = [view[i]['inputs'].item() for i in range(len(view))]
    labels = [view[i]['label'] for i in range(len(view))]
    return indices, [[i for i, label in zip(indices, labels) if label == k] for k in range(max(labels) + 1)]


@pytest.mark.parametrize(
    ('arguments', 'counts'),
    [
        ((3, 100, 100), [100, 10, 1]),
        ((3, 300, 3), [300, 173, 100]),
        ((10, 5000, 100), [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),  # CIFAR-10-LT
        ((10, 2000, 1), [2000] * 10),
        ((4, 50, 10, 'step'), [50, 50, 5, 5]),
        ((3, 50, 7, 'step'), [50, 7, 7]),
        ((2, 50, 10), [50, 5]),
    ],
)
def test_long_tailed_counts__by_hand(arguments, counts):
    assert long_tailed_counts(*arguments) == counts


@pytest.mark.parametrize('num_classes', [3, 10, 100])
@pytest.mark.parametrize('factor', [1, 3, 7, 10, 20, 50, 100, 256])
def test_long_tailed_counts__last_count_is_exact(num_classes, factor):
    counts = long_tailed_counts(num_classes, 10 * factor, factor)
    assert counts[0] == 10 * factor and counts[-1] == 10
    assert counts == sorted(counts, reverse=True)


def test_long_tailed__is_the_profile_in_the_original_order():
    data = Images(shuffled([60, 60, 60]))
    view = LongTailedDataset(data, imbalance_factor=4, max_per_class=40)
    indices, by_class = shown(view)
    assert [len(images) for images in by_class] == [40, 20, 10]
    assert len(view) == 70 and indices == sorted(set(indices))
    assert view.metainfo == dict(data.metainfo, class_counts=(40, 20, 10))
    assert all(type(count) is int for count in view.metainfo['class_counts'])
    assert class_counts(view) == [40, 20, 10]


def test_long_tailed__answers_for_the_images_it_shows():
    data = Images(shuffled([30, 30, 30]))
    view = LongTailedDataset(data, imbalance_factor=10)
    labels = [view[i]['label'] for i in range(len(view))]
    assert view.get_gt_labels().tolist() == labels
    assert [view.get_cat_ids(i) for i in range(len(view))] == [[label] for label in labels]
    assert [view.get_data_info(i)['gt_label'] for i in range(len(view))] == labels
    assert view.get_data_info(4)['img_path'] == f'{view[4]["inputs"].item()}.png'
    assert view[-1]['inputs'] == view[len(view) - 1]['inputs']


def test_long_tailed__metainfo_is_a_copy():
    view = LongTailedDataset(Images(shuffled([9, 9])), imbalance_factor=3)
    view.metainfo['palette'].append(2)
    assert view.metainfo['palette'] == [1] == view.dataset.metainfo['palette']


def test_long_tailed__factor_one_shows_everything():
    data = Images(shuffled([20, 20, 20]))
    assert shown(LongTailedDataset(data, imbalance_factor=1))[0] == list(range(60))


@pytest.mark.parametrize('profile', ['exponential', 'step'])
@pytest.mark.parametrize('sizes', [[50, 50, 50, 50], [80, 31, 12, 9], [9, 12, 31, 80], [50, 49, 50, 50]])
def test_long_tailed__default_size_is_the_largest_that_fits(sizes, profile):
    view = LongTailedDataset(Images(shuffled(sizes)), imbalance_factor=5, profile=profile)
    fitting = [
        n
        for n in range(1, 100)
        if all(count <= size for count, size in zip(long_tailed_counts(4, n, 5, profile), sizes))
    ]
    assert view.metainfo['class_counts'] == tuple(long_tailed_counts(4, max(fitting), 5, profile))


def test_long_tailed__class_order_runs_from_most_to_least_frequent():
    data = Images(shuffled([40, 50, 60]))
    view = LongTailedDataset(data, imbalance_factor=4, max_per_class=40, class_order=[2, 0, 1])
    assert view.metainfo['class_counts'] == (20, 10, 40)
    assert [len(images) for images in shown(view)[1]] == [20, 10, 40]


def test_long_tailed__a_class_does_not_depend_on_the_others():
    labels = shuffled([50, 50, 50])
    first = shown(LongTailedDataset(Images(labels), imbalance_factor=4, max_per_class=40))[1]
    # The images of class 1 stay where they are, the others change their labels.
    other = shown(LongTailedDataset(Images([x if x == 1 else 2 - x for x in labels]), 4, max_per_class=40))[1]
    assert first[1] == other[1] and first[0] != other[0]


def test_long_tailed__weaker_imbalance_shows_the_same_and_more():
    data = Images(shuffled([50, 50, 50]))
    weak, strong = (shown(LongTailedDataset(data, factor))[1] for factor in (2, 10))
    assert all(set(few) <= set(many) for few, many in zip(strong, weak))
    assert len(weak[2]) == 25 and len(strong[2]) == 5


def test_long_tailed__seed_decides_and_the_global_state_is_left_alone():
    data = Images(shuffled([50, 50, 50]))
    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    before = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()
    views = [shown(LongTailedDataset(data, 10, seed=seed))[0] for seed in (0, 0, 1)]
    assert views[0] == views[1] != views[2]
    assert (np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()) == before


def test_long_tailed__is_the_same_in_every_process(run_python):
    script = (
        'from sar_mm.datasets import LongTailedDataset\n'
        'class Images:\n'
        '    metainfo = dict()\n'
        '    def __len__(self): return 30\n'
        '    def __getitem__(self, index): return index\n'
        '    def get_cat_ids(self, index): return [index % 3]\n'
        'print(list(LongTailedDataset(Images(), 4)))'
    )
    (found,) = run_python(script)[0]
    assert found == str(shown(LongTailedDataset(Images([0, 1, 2] * 10), 4))[0])


@pytest.mark.parametrize('num_workers', [0, 2])
def test_long_tailed__works_in_a_dataloader(num_workers):
    from mmengine.runner import Runner

    data = Images(shuffled([30, 30]))
    view = LongTailedDataset(data, imbalance_factor=3)
    sampler = dict(type='DefaultSampler', shuffle=False)
    loader = Runner.build_dataloader(dict(dataset=view, sampler=sampler, batch_size=8, num_workers=num_workers))
    loaded = torch.cat([torch.stack(list(batch['inputs'])) for batch in loader]).tolist()
    assert loaded == shown(view)[0]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images in folders, 12 of each of three classes, as mmpretrain's CustomDataset reads them."""
    from PIL import Image

    root = tmp_path_factory.mktemp('images')
    for name in ('ant', 'bee', 'cat'):
        (root / name).mkdir()
        for number in range(12):
            Image.new('RGB', (4, 4)).save(root / name / f'{number}.png')
    return root


@pytest.mark.parametrize('lazy_init', [False, True])
def test_long_tailed__from_a_config(folder, lazy_init):
    pytest.importorskip('mmpretrain.datasets')
    inner = dict(type='mmpretrain.CustomDataset', data_prefix=str(folder), lazy_init=lazy_init)
    config = dict(type='sar_mm.LongTailedDataset', dataset=inner, imbalance_factor=4, lazy_init=lazy_init)
    view = DATASETS.build(config)
    assert lazy_init == ('class_counts' not in view.metainfo)
    assert len(view) == 21  # the first use loads
    assert list(view.metainfo['classes']) == ['ant', 'bee', 'cat']
    assert view.metainfo['class_counts'] == (12, 6, 3)
    assert view[20]['gt_label'] == 2 and view[20]['img_path'].startswith(str(folder / 'cat'))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(imbalance_factor=0.9), 'Expected argument `imbalance_factor` to be a finite number of at least 1.*0.9'),
        (dict(imbalance_factor=float('inf')), 'Expected argument `imbalance_factor`'),
        (dict(imbalance_factor='10'), 'Expected argument `imbalance_factor`'),
        (
            dict(profile='linear'),
            r"`profile` to be one of \('exponential', 'step'\), but got 'linear'",
        ),
        (dict(max_per_class=0), 'Expected argument `max_per_class` to be an integer of at least 1'),
        (dict(class_order=[0, 1, 1]), 'Expected argument `class_order` to be a permutation'),
        (dict(class_order=[1, 2, 3]), 'Expected argument `class_order` to be a permutation'),
        (dict(class_order=[1, 0]), 'Expected argument `class_order` to be a permutation of the 3 class indices'),
        (dict(class_order=5), 'Expected argument `class_order`'),
        (dict(seed=-1), 'Expected argument `seed`'),
        (dict(max_per_class=31), r'class 0 \(ant\) has 30 images, but 31 are needed with max_per_class=31'),
        (dict(imbalance_factor=31), r'class 2 \(cat\) would get 0 images with max_per_class=30, imbalance_factor=31'),
    ],
)
def test_long_tailed__bad_arguments(options, message):
    data = Images(shuffled([30, 30, 30]), classes=('ant', 'bee', 'cat'))
    with pytest.raises(ValueError, match=message):
        LongTailedDataset(data, **{'imbalance_factor': 10, **options})


def test_long_tailed__missing_class():
    data = Images(shuffled([30, 0, 30]), classes=('ant', 'bee', 'cat'))
    with pytest.raises(ValueError, match=r'class 1 \(bee\) has no image in Images'):
        LongTailedDataset(data, imbalance_factor=2)


def test_long_tailed__label_beyond_the_classes():
    data = Images([0, 1, 2], classes=('ant', 'bee'))
    with pytest.raises(ValueError, match=r'labels of Images` to be in \[0, 2\), but got 2'):
        LongTailedDataset(data, imbalance_factor=1)


def test_long_tailed__several_labels_per_image():
    data = Images([0, 1])
    data.get_cat_ids = lambda index: [0, 1]
    with pytest.raises(ValueError, match=r'one label per image \(image 0\), but got \[0, 1\]'):
        LongTailedDataset(data, imbalance_factor=1)


def test_long_tailed__a_rejected_image_is_never_replaced_by_one_it_does_not_show():
    from mmengine.dataset import BaseDataset

    class Numbers(BaseDataset):
        def load_data_list(self):
            return [dict(number=index, gt_label=index % 2) for index in range(40)]

        def get_cat_ids(self, idx):
            return [idx % 2]

    step = [lambda info: info if info['number'] % 3 == 0 else None]
    view = LongTailedDataset(Numbers(pipeline=step), imbalance_factor=4)
    shown_numbers = [view.get_data_info(index)['number'] for index in range(len(view))]
    given = [view[index]['number'] for index in range(len(view)) for _ in range(20)]
    assert set(given) == {number for number in shown_numbers if number % 3 == 0}
