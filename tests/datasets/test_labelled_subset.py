import json
import random

import numpy as np
import pytest
import torch

from sar_mm.datasets import (
    LabelledSubset,
    LongTailedDataset,
    class_counts,
)
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
        return dict(gt_label=self.labels[index])

    def get_cat_ids(self, index):
        return [self.labels[index]]


class Unlabelled:
    """Images without labels, as in segmentation."""

    metainfo = dict(classes=('a', 'b'))

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return dict(inputs=index)

    def get_data_info(self, index):
        return dict(img_path=f'{index}.png')


def shuffled(sizes, seed=0):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).permutation(labels).tolist()


def shown(view):
    return [view[i]['inputs'].item() for i in range(len(view))]


def both(data, **options):
    return [LabelledSubset(data, part, **options) for part in ('labelled', 'unlabelled')]


@pytest.mark.parametrize(
    ('options', 'counts'), [(dict(per_class=4), [4, 4, 4]), (dict(fraction=0.25), [10, 5, 2])], ids=str
)
def test_labelled_subset__parts_share_nothing_and_are_all(options, counts):
    data = Images(shuffled([40, 20, 8]))
    labelled, unlabelled = both(data, **options)
    assert class_counts(labelled) == list(labelled.metainfo['class_counts']) == counts
    assert class_counts(unlabelled) == [total - count for total, count in zip([40, 20, 8], counts)]
    assert sorted(shown(labelled) + shown(unlabelled)) == list(range(68))
    assert shown(labelled) == sorted(shown(labelled)) == labelled.indices.tolist()


def test_labelled_subset__answers_for_the_images_it_shows():
    data = Images(shuffled([30, 30, 30]))
    for view in both(data, per_class=5):
        labels = [view[i]['label'] for i in range(len(view))]
        assert view.get_gt_labels().tolist() == labels
        assert [view.get_cat_ids(i) for i in range(len(view))] == [[label] for label in labels]
        assert [view.get_data_info(i)['gt_label'] for i in range(len(view))] == labels
        assert view[-1]['inputs'] == view[len(view) - 1]['inputs']
        with pytest.raises(IndexError):
            view[len(view)]


def test_labelled_subset__attributes_are_copies():
    view = LabelledSubset(Images(shuffled([9, 9])), 'labelled', per_class=3)
    view.metainfo['palette'].append(2)
    view.indices[:] = 0
    assert view.metainfo['palette'] == [1] == view.dataset.metainfo['palette']
    assert len(set(view.indices.tolist())) == 6


def test_labelled_subset__seed_decides_and_the_global_state_is_left_alone():
    data = Images(shuffled([50, 50, 50]))
    before = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()
    views = [shown(LabelledSubset(data, 'labelled', per_class=6, seed=seed)) for seed in (0, 0, 1)]
    assert views[0] == views[1] != views[2]
    assert (np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize('content', ['5\n0\n2\n', json.dumps(dict(label=[5, 0, 2]))])
def test_labelled_subset__file(tmp_path, content):
    path = tmp_path / 'labelled.txt'
    path.write_text(content)
    labelled, unlabelled = both(Images([0, 1, 0, 1, 0, 1, 1]), file=str(path))
    assert shown(labelled) == [0, 2, 5] and shown(unlabelled) == [1, 3, 4, 6]
    assert labelled.metainfo['class_counts'] == (2, 1)


def test_labelled_subset__file_beyond_the_data_set(tmp_path):
    (tmp_path / 'list').write_text('0\n7\n')
    with pytest.raises(ValueError, match='list lists image 7, but Images has 7 images'):
        LabelledSubset(Images([0, 1, 0, 1, 0, 1, 1]), 'labelled', file=str(tmp_path / 'list'))


def test_labelled_subset__file_needs_no_labels(tmp_path):
    (tmp_path / 'list').write_text('0\n4\n')
    view = LabelledSubset(Unlabelled(), 'labelled', file=str(tmp_path / 'list'))
    assert len(view) == 2 and view.get_data_info(1)['img_path'] == '4.png'
    assert 'class_counts' not in view.metainfo
    with pytest.raises(NotImplementedError, match='Unlabelled has no labels of images'):
        view.get_cat_ids(0)
    with pytest.raises(NotImplementedError, match='Unlabelled has no labels of images'):
        view.get_gt_labels()
    with pytest.raises(ValueError, match='no labels of images to count'):
        class_counts(view)


def test_labelled_subset__of_a_long_tailed_view():
    data = LongTailedDataset(Images(shuffled([100, 100, 100])), imbalance_factor=25)
    labelled, unlabelled = both(data, fraction=0.1)
    assert data.metainfo['class_counts'] == (100, 20, 4)
    assert labelled.metainfo['class_counts'] == (10, 2, 1) and class_counts(unlabelled) == [90, 18, 3]
    assert sorted(shown(labelled) + shown(unlabelled)) == [data[i]['inputs'].item() for i in range(124)]


@pytest.mark.parametrize('long_tailed', [False, True])
def test_labelled_subset__a_rejected_image_is_never_replaced_by_one_of_the_other_part(long_tailed):
    from mmengine.dataset import BaseDataset

    class Numbers(BaseDataset):
        def load_data_list(self):
            return [dict(number=index, gt_label=index % 2) for index in range(20)]

        def get_cat_ids(self, idx):
            return [idx % 2]

    data = Numbers(pipeline=[lambda info: None if info['number'] % 3 else info])
    data = LongTailedDataset(data, imbalance_factor=1) if long_tailed else data
    labelled, unlabelled = both(data, per_class=5)
    for view in (labelled, unlabelled):
        given = {view[i]['number'] for i in range(len(view))}
        assert given == {index for index in view.indices.tolist() if index % 3 == 0}
    never = Numbers(pipeline=[lambda info: None])
    with pytest.raises(RuntimeError, match='returned None for each of the 10 images of LabelledSubset'):
        LabelledSubset(never, 'labelled', per_class=5)[0]


@pytest.mark.parametrize('lazy_init', [False, True])
def test_labelled_subset__from_a_config(tmp_path, lazy_init):
    pytest.importorskip('mmpretrain.datasets')
    (tmp_path / 'all.txt').write_text(''.join(f'{i}.png {i % 2}\n' for i in range(10)))
    inner = dict(type='mmpretrain.CustomDataset', data_root=str(tmp_path), ann_file='all.txt', lazy_init=lazy_init)
    config = dict(type='LabelledSubset', dataset=inner, part='unlabelled', per_class=2, lazy_init=lazy_init)
    view = DATASETS.build(config)
    assert lazy_init == ('class_counts' not in view.metainfo)
    assert len(view.indices) == len(view) == 6  # the first use loads
    assert view.metainfo['class_counts'] == (3, 3)
    assert view[0]['img_path'] == str(tmp_path / f'{view.indices[0]}.png')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(part='test'), r"Expected argument `part` to be one of \('labelled', 'unlabelled'\), but got 'test'"),
        (dict(per_class=0), 'Expected argument `per_class` to be an integer of at least 1, but got 0'),
        (dict(per_class=None, fraction=0), r'Expected argument `fraction` to be a number in \(0, 1\], but got 0'),
        (dict(per_class=None, fraction='1/4'), 'Expected argument `fraction`'),
        (dict(seed=-1), 'Expected argument `seed`'),
        (dict(fraction=0.5), r"exactly one of .* but got \['per_class', 'fraction'\]"),
        (dict(per_class=None), 'exactly one of `per_class`, `fraction` and `file`, but got none'),
        (dict(per_class=9), r'class 1 \(bee\) has 8 images, but 9 are to be drawn'),
    ],
)
def test_labelled_subset__bad_arguments(options, message):
    data = Images(shuffled([10, 8]), classes=('ant', 'bee'))
    with pytest.raises(ValueError, match=message):
        LabelledSubset(data, **{'part': 'labelled', 'per_class': 2, **options})


def test_labelled_subset__several_labels_per_image():
    data = Images([0, 1])
    data.get_cat_ids = lambda index: [0, 1]
    with pytest.raises(ValueError, match=r'one label per image \(image 0\), but got \[0, 1\]'):
        LabelledSubset(data, 'labelled', per_class=1)
