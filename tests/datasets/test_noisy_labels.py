import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from torch import nn
from torch.utils.data import Subset

from sar_mm.datasets import (
    ClassPowerSampler,
    LabelledSubset,
    LongTailedDataset,
    NoisyLabels,
    class_counts,
    distinct_class_counts,
)
from sar_mm.datasets.noisy_labels import flip_labels
from sar_mm.engine.hooks import ClassCountsHook
from sar_mm.registry import DATASETS

SIZES = [10, 6, 4]
# Half of them, 5, 3 and 2, go to the next class.
PAIRED = [10 - 5 + 2, 6 - 3 + 5, 4 - 2 + 3]


def shuffled(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(0).permutation(labels)


LABELS = shuffled(SIZES).tolist()


@DATASETS.register_module('NoisyImages', force=True)
class Images(BaseDataset):
    """Images that are their own number; with a folder, in files."""

    METAINFO = dict(classes=('ant', 'bee', 'cat'))

    def __init__(self, labels=LABELS, folder=None, **kwargs):
        self.labels, self.folder = labels, folder
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self):
        paths = [dict() if self.folder is None else dict(img_path=f'{self.folder}/{i}.png') for i in range(99)]
        return [dict(path, number=i, gt_label=label) for i, (path, label) in enumerate(zip(paths, self.labels))]

    def get_cat_ids(self, idx):
        return [self.data_list[idx]['gt_label']]


def pack(info):
    return dict(inputs=info['number'], label=info['gt_label'])


def every_third(info):
    return pack(info) if info['number'] % 3 == 0 else None


def two_views(info):
    return dict(weak=info['number'], strong=info['number'])


def images(step=pack, **options):
    return dict(type='NoisyImages', pipeline=[step], **options)


def noisy(dataset, rate=0.5, kind='pairwise', **options):
    return dict(type='sar_mm.NoisyLabels', dataset=dataset, rate=rate, kind=kind, **options)


def long_tailed(dataset):
    return dict(type='sar_mm.LongTailedDataset', imbalance_factor=4, dataset=dataset)


def part(name, dataset, per_class=4):
    return dict(type='sar_mm.LabelledSubset', part=name, per_class=per_class, dataset=dataset)


def repeated(dataset):
    return dict(type='RepeatDataset', times=3, dataset=dataset)


def balanced(dataset):
    # Only the last class, of frequency 5 / 20, is below the threshold: its images come ceil(sqrt(0.26 / 0.25)) times.
    return dict(type='ClassBalancedDataset', oversample_thr=0.26, dataset=dataset)


def joined(*datasets):
    return dict(type='ConcatDataset', datasets=list(datasets), ignore_keys='class_counts')


def semi_supervised(labelled, unlabelled):
    return dict(type='sar_mm.SemiSupervisedDataset', labelled=labelled, unlabelled=unlabelled)


# A config, its counts as training sees them, and those of distinct images.
COMBINATIONS = dict(
    alone=(noisy(images()), PAIRED, PAIRED),
    symmetric_rate_0=(noisy(images(), 0, 'symmetric'), SIZES, SIZES),
    repeated=(repeated(noisy(images())), PAIRED, PAIRED),
    balanced=(balanced(noisy(images())), [7, 8, 10], PAIRED),
    repeated_balanced=(repeated(balanced(noisy(images()))), [7, 8, 10], PAIRED),
    joined=(joined(noisy(images()), noisy(images(), seed=1)), [14, 16, 10], [14, 16, 10]),
    joined_with_clean=(joined(noisy(images()), images()), [17, 14, 9], [17, 14, 9]),
    joined_same_files=(joined(noisy(images(folder='x')), noisy(images(folder='x'))), [14, 16, 10], PAIRED),
    joined_repeated=(joined(repeated(noisy(images())), images()), [31, 30, 19], [17, 14, 9]),
    in_long_tailed=(long_tailed(noisy(images())), [7, 3, 1], [7, 3, 1]),
    in_labelled=(part('labelled', noisy(images())), [4, 4, 4], [4, 4, 4]),
    in_unlabelled=(part('unlabelled', noisy(images())), [3, 4, 1], [3, 4, 1]),
    in_labelled_of_long_tailed=(part('labelled', long_tailed(noisy(images())), 1), [1, 1, 1], [1, 1, 1]),
    in_long_tailed_of_repeated=(long_tailed(repeated(noisy(images()))), [21, 10, 5], None),
    # The long-tailed view has 10, 5 and 2 images, of which 5, 2 and 1 are changed.
    of_long_tailed=(noisy(long_tailed(images())), [6, 8, 3], [6, 8, 3]),
    of_labelled=(noisy(part('labelled', images())), [4, 4, 4], [4, 4, 4]),
    # 8, 4 and 2 images, of which 4, 2 and 1 are changed.
    of_unlabelled=(noisy(part('unlabelled', images(), 2)), [5, 6, 3], [5, 6, 3]),
    # Of 7, 8 and 5 labels, 4 (3.5, to even), 4 and 2 are changed again.
    of_noisy=(noisy(noisy(images(), seed=1)), [5, 8, 7], [5, 8, 7]),
    semi_supervised=(
        semi_supervised(noisy(part('labelled', images(), 3), 0.3), part('unlabelled', images(two_views), 3)),
        [3, 3, 3],
        [3, 3, 3],
    ),
    semi_supervised_around=(
        semi_supervised(part('labelled', noisy(images()), 2), part('unlabelled', noisy(images(two_views)), 2)),
        [2, 2, 2],
        [2, 2, 2],
    ),
)
every_combination = pytest.mark.parametrize(
    ('config', 'seen', 'distinct'), COMBINATIONS.values(), ids=COMBINATIONS.keys()
)


@every_combination
def test_noisy_labels__counts_are_those_of_noisy_labels(config, seen, distinct):
    data = DATASETS.build(config)
    assert class_counts(data) == seen
    if distinct is None:  # which of the repeated images the view took is up to the drawing
        label_of = {sample['inputs']: sample['label'] for sample in (data[index] for index in range(len(data)))}
        distinct = np.bincount(list(label_of.values()), minlength=3).tolist()
    assert distinct_class_counts(data) == distinct


@every_combination
def test_noisy_labels__pipelines_see_them_and_annotations_tell_them(config, seen, distinct):
    data = DATASETS.build(config)
    data = getattr(data, 'labelled', data)
    given = [data[index]['label'] for index in range(len(data))]
    assert [data.get_data_info(index)['gt_label'] for index in range(len(data))] == given
    while config['type'] == 'RepeatDataset':  # its rounds do not count
        seen, config = [3 * count for count in seen], config['dataset']
    assert np.bincount(given, minlength=3).tolist() == seen


def names_with(word):
    return [name for name in COMBINATIONS if word in name]


@pytest.mark.parametrize('name', [*names_with('in_'), 'repeated', 'balanced', 'repeated_balanced'])
def test_noisy_labels__wrappers_show_the_labels_that_it_drew(name):
    drawn = DATASETS.build(noisy(images()))
    data = DATASETS.build(COMBINATIONS[name][0])
    samples = [data[index] for index in range(len(data))]
    assert all(sample['label'] == drawn.get_cat_ids(sample['inputs'])[0] for sample in samples)
    assert any(sample['label'] != LABELS[sample['inputs']] for sample in samples)


@pytest.mark.parametrize('name', [name for name in COMBINATIONS if not name.startswith('semi')])
def test_noisy_labels__class_power_sampler_draws_by_them(name):
    data = DATASETS.build(COMBINATIONS[name][0])
    labels = np.array([data.get_data_info(index)['gt_label'] for index in range(len(data))])
    sampler = ClassPowerSampler(data, power=0, seed=0)
    assert sampler._counts.tolist() == np.bincount(labels).tolist()
    assert (labels[sampler._by_class.numpy()] == np.sort(labels)).all()


class Counts(nn.Module):
    def set_class_counts(self, counts):
        self.counts = counts


@pytest.mark.parametrize('name', ['alone', 'balanced', 'in_long_tailed', 'of_long_tailed', 'semi_supervised'])
def test_noisy_labels__class_counts_hook(name):
    config, seen, _ = COMBINATIONS[name]
    model = Counts()
    loops = dict(_train_loop=None, _val_loop=None, _test_loop=None)
    ClassCountsHook().before_run(SimpleNamespace(model=model, _train_dataloader=dict(dataset=config), **loops))
    assert model.counts == seen


def test_noisy_labels__parts_that_share_images_are_told():
    config = semi_supervised(noisy(images()), noisy(images(two_views)))
    with pytest.raises(ValueError, match='20 of the 20 labelled images are unlabelled, too: image 0 of Images'):
        DATASETS.build(config)


def test_noisy_labels__join_needs_ignore_keys():
    config = dict(type='ConcatDataset', datasets=[noisy(images()), noisy(images(), 0.2)])
    with pytest.raises(ValueError, match='does not match meta information of the first'):
        DATASETS.build(config)


def test_noisy_labels__torch_subset():
    data = DATASETS.build(noisy(images()))
    assert [sample['label'] for sample in Subset(data, [3, 1])] == [data[3]['label'], data[1]['label']]


@pytest.mark.parametrize('kind', ['symmetric', 'pairwise'])
@pytest.mark.parametrize('rate', [0, 0.1, 0.25, 0.5, 0.45, 0.99])
def test_noisy_labels__exactly_the_share_of_each_class(rate, kind):
    view = NoisyLabels(Images(), rate, kind)
    clean = np.array(LABELS)
    changed = np.bincount(clean[view.is_noisy], minlength=3)
    assert changed.tolist() == [round(rate * size) for size in SIZES]
    assert (view.clean_labels == clean).all() and view.is_noisy.dtype == bool
    assert ((view.get_gt_labels() != clean) == view.is_noisy).all()
    assert view.metainfo['class_counts'] == tuple(np.bincount(view.get_gt_labels(), minlength=3).tolist())
    assert all(type(count) is int for count in view.metainfo['class_counts'])


def test_noisy_labels__answers_for_noisy_labels():
    view = NoisyLabels(Images(pipeline=[pack]), 0.5)
    labels = [view[i]['label'] for i in range(len(view))]
    assert len(view) == 20 and [view[i]['inputs'] for i in range(20)] == list(range(20))
    assert view.get_gt_labels().tolist() == labels != LABELS
    assert [view.get_cat_ids(i) for i in range(20)] == [[label] for label in labels]
    infos = [view.get_data_info(i) for i in range(20)]
    assert [info['gt_label'] for info in infos] == labels and all(type(label) is int for label in labels)
    assert infos[7] == dict(number=7, gt_label=labels[7], sample_idx=7)
    assert view[-1] == view[19] and view.get_data_info(-1)['gt_label'] == labels[19]
    assert view.dataset.get_data_info(7)['gt_label'] == LABELS[7]  # the data set underneath stays as it is
    assert view.metainfo['classes'] == ('ant', 'bee', 'cat')


def test_noisy_labels__arrays_and_metainfo_are_copies():
    view = NoisyLabels(Images(), 0.5)
    before = view.get_gt_labels()
    for values in (view.get_gt_labels(), view.clean_labels, view.is_noisy):
        values[:] = 2
    view.metainfo['class_counts'] = ()
    assert (view.get_gt_labels() == before).all() and view.clean_labels.tolist() == LABELS
    assert 0 < view.is_noisy.sum() < 20 and sum(view.metainfo['class_counts']) == 20


def test_flip_labels__pairwise_goes_to_the_next_class():
    labels = shuffled([200, 100, 50, 10])
    wrong = flip_labels(labels, 4, 0.3, 'pairwise')
    changed = wrong != labels
    assert np.bincount(labels[changed]).tolist() == [60, 30, 15, 3]
    assert (wrong[changed] == (labels[changed] + 1) % 4).all()


def test_flip_labels__symmetric_goes_to_each_other_class_alike():
    labels = shuffled([6000] * 4)
    wrong = flip_labels(labels, 4, 0.3, 'symmetric')
    transitions = np.zeros((4, 4), dtype=int)
    np.add.at(transitions, (labels, wrong), 1)
    assert np.diag(transitions).tolist() == [4200] * 4
    # 1800 of a class at 1/3 each: a standard deviation of 20.
    assert np.abs(transitions[~np.eye(4, dtype=bool)] - 600).max() < 80


def test_flip_labels__a_class_without_images_may_be_the_wrong_one():
    labels = np.zeros(90, dtype=np.int64)
    assert set(flip_labels(labels, 3, 0.5).tolist()) == {0, 1, 2}


@pytest.mark.parametrize('kind', ['symmetric', 'pairwise'])
def test_flip_labels__higher_rate_changes_the_same_and_more(kind):
    labels = shuffled([50, 40, 30])
    before = labels
    for rate in (0.1, 0.3, 0.31, 0.8):
        wrong = flip_labels(labels, 3, rate, kind)
        was_changed = before != labels
        assert (wrong[was_changed] == before[was_changed]).all()
        assert (wrong != labels).sum() > was_changed.sum()
        before = wrong


@pytest.mark.parametrize('kind', ['symmetric', 'pairwise'])
def test_flip_labels__a_class_does_not_depend_on_the_others(kind):
    labels = shuffled([50, 50, 50])
    # The images of class 1 stay where they are, the others change their labels.
    other = np.where(labels == 1, 1, 2 - labels)
    first, second = (flip_labels(each, 3, 0.4, kind) for each in (labels, other))
    assert (first[labels == 1] == second[labels == 1]).all()
    changed = [
        set(np.flatnonzero((labels == 0) & (wrong != each))) for wrong, each in ((first, labels), (second, other))
    ]
    assert changed[0] != changed[1]


def test_flip_labels__seed_decides_and_the_global_state_is_left_alone():
    labels = shuffled([50, 50, 50])
    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    before = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()
    found = [flip_labels(labels, 3, 0.4, seed=seed).tolist() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert (np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()) == before


def test_noisy_labels__is_the_same_in_every_process(run_python):
    script = (
        'from mmengine.dataset import BaseDataset\n'
        'from sar_mm.datasets import NoisyLabels\n'
        'class Images(BaseDataset):\n'
        '    def load_data_list(self): return [dict(gt_label=index % 3) for index in range(30)]\n'
        'print(NoisyLabels(Images(), 0.4, seed=5).get_gt_labels().tolist())'
    )
    (found,) = run_python(script)[0]
    assert found == str(NoisyLabels(Images([0, 1, 2] * 10), 0.4, seed=5).get_gt_labels().tolist())


@pytest.mark.parametrize('num_workers', [0, 2])
def test_noisy_labels__works_in_a_dataloader(num_workers):
    from mmengine.runner import Runner

    sampler = dict(type='DefaultSampler', shuffle=False)
    config = dict(dataset=noisy(images()), sampler=sampler, batch_size=8, num_workers=num_workers)
    loader = Runner.build_dataloader(dict(config, collate_fn=dict(type='default_collate')))
    loaded = torch.cat([batch['label'] for batch in loader]).tolist()
    assert loaded == loader.dataset.get_gt_labels().tolist() != LABELS


@pytest.mark.parametrize('around', [lambda data: data, long_tailed, part], ids=['alone', 'long_tailed', 'labelled'])
def test_noisy_labels__lazy(around):
    inner = noisy(images(lazy_init=True), lazy_init=True)
    config = dict(part('labelled', inner) if around is part else around(inner), lazy_init=True)
    view = DATASETS.build(config)
    assert 'class_counts' not in view.metainfo
    assert len(view) == sum(view.metainfo['class_counts'])  # the first use loads


def test_noisy_labels__lazy_has_no_counts_of_clean_labels():
    view = NoisyLabels(LongTailedDataset(Images(), 4), 0.5, 'pairwise', lazy_init=True)
    assert 'class_counts' not in view.metainfo
    assert view.clean_labels.shape == (17,) and view.metainfo['class_counts'] == (6, 8, 3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images in folders, 4 of each of three classes, as mmpretrain's CustomDataset reads them."""
    from PIL import Image

    root = tmp_path_factory.mktemp('images')
    for name in ('ant', 'bee', 'cat'):
        (root / name).mkdir()
        for number in range(4):
            Image.new('RGB', (4, 4)).save(root / name / f'{number}.png')
    return root


def test_noisy_labels__of_mmpretrain(folder):
    pytest.importorskip('mmpretrain.datasets')
    steps = [dict(type='mmpretrain.LoadImageFromFile'), dict(type='mmpretrain.PackInputs')]
    inner = dict(type='mmpretrain.CustomDataset', data_prefix=str(folder), pipeline=steps)
    view = DATASETS.build(noisy(inner, 0.25))
    given = [view[index]['data_samples'].gt_label.item() for index in range(12)]
    assert given == view.get_gt_labels().tolist() and view.is_noisy.sum() == 3
    assert view.metainfo['class_counts'] == (4, 4, 4)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda data: data,
        long_tailed,
        lambda data: part('unlabelled', data),
        lambda data: long_tailed(repeated(data)),
        lambda data: long_tailed(balanced(data)),
        lambda data: long_tailed(joined(images(every_third), data)),
        lambda data: noisy(part('unlabelled', data)),
    ],
    ids=['alone', 'long_tailed', 'unlabelled', 'of_repeated', 'of_balanced', 'of_joined', 'noisy_again'],
)
def test_noisy_labels__a_rejected_image_is_replaced_by_the_next_one_with_its_label(wrap):
    view = DATASETS.build(wrap(noisy(images(every_third))))
    shown = [view.get_data_info(index) for index in range(len(view))]
    expected = []
    for place in range(len(shown)):
        later = shown[place:] + shown[:place]
        info = next(info for info in later if info['number'] % 3 == 0)
        expected.append((info['number'], info['gt_label']))
    given = [view[index] for index in range(len(view))]
    assert Counter((sample['inputs'], sample['label']) for sample in given) == Counter(expected)


def test_noisy_labels__images_that_are_all_rejected():
    view = NoisyLabels(Images(pipeline=[lambda info: None]), 0.5)
    with pytest.raises(RuntimeError, match='None for each of the 20 images of NoisyLabels'):
        view[0]


@pytest.mark.parametrize('around', [lambda view: view, lambda view: LabelledSubset(view, 'labelled', fraction=1)])
def test_noisy_labels__a_rejected_image_is_an_error_in_test_mode(around):
    view = around(NoisyLabels(Images(pipeline=[every_third], test_mode=True), 0.5))
    with pytest.raises(RuntimeError, match='returned None for image 1 of NoisyLabels in test mode'):
        view[1]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(rate=1), r'Expected argument `rate` to be a number in \[0, 1\), but got 1'),
        (dict(rate=-0.1), r'Expected argument `rate` to be a number in \[0, 1\), but got -0.1'),
        (dict(rate=float('nan')), r'Expected argument `rate` to be a number in \[0, 1\), but got nan'),
        (dict(rate='0.4'), "Expected argument `rate`.*'0.4'"),
        (dict(rate=False), 'Expected argument `rate`.*False'),
        (
            dict(kind='symetric'),
            r"`kind` to be one of \('symmetric', 'pairwise'\), but got 'symetric'; did you mean symmetric\?",
        ),
        (dict(seed=-1), 'Expected argument `seed` to be an integer of at least 0'),
        (dict(dataset='CIFAR10'), "Expected argument `dataset` to be a data set, or its config.*'CIFAR10'"),
    ],
)
def test_noisy_labels__bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        NoisyLabels(**{'dataset': Images(), 'rate': 0.5, **options})


class Tagged(LongTailedDataset):
    def __getitem__(self, idx):
        return dict(super().__getitem__(idx), tag=idx)


class Changing(LongTailedDataset):
    def prepare_data(self, idx):
        return dict(super().prepare_data(idx), tag=idx)


class Own(Images):
    def prepare_data(self, idx):
        return idx


class Plain:
    metainfo = dict()

    def __len__(self):
        return 3


@pytest.mark.parametrize('lazy_init', [False, True])
@pytest.mark.parametrize(
    ('make', 'name'),
    [
        (lambda: repeated(images()), 'RepeatDataset'),
        (lambda: balanced(images()), 'ClassBalancedDataset'),
        (lambda: joined(images(), images()), 'ConcatDataset'),
        (lambda: long_tailed(repeated(images())), 'RepeatDataset'),
        # These read in their own way, which would be left out.
        (lambda: Tagged(Images(), 2), 'Tagged'),
        (lambda: Changing(Images(), 2), 'Changing'),
        (lambda: Own(), 'Own'),
        (lambda: Plain(), 'Plain'),
    ],
    ids=[
        'repeated',
        'balanced',
        'joined',
        'view_of_repeated',
        'own_view',
        'changing_view',
        'own_images',
        'no_base_dataset',
    ],
)
def test_noisy_labels__of_what_has_no_pipeline(make, name, lazy_init):
    message = f"Expected argument `dataset` to be mmengine's BaseDataset.*put NoisyLabels inside.*got '{name}'"
    with pytest.raises(ValueError, match=message):
        NoisyLabels(make(), 0.5, lazy_init=lazy_init)


def test_noisy_labels__one_class():
    with pytest.raises(ValueError, match=r"`dataset` to be of at least 2 classes.*'Images'"):
        NoisyLabels(Images([0, 0], metainfo=dict(classes=('ant',))), 0.5)


def test_noisy_labels__labels_under_another_key():
    class Renamed(Images):
        def load_data_list(self):
            return [dict(label=label) for label in self.labels]

        def get_cat_ids(self, idx):
            return [self.data_list[idx]['label']]

    with pytest.raises(ValueError, match="get_data_info.* has a 'gt_label' to change, but got 'Renamed'"):
        NoisyLabels(Renamed(), 0.5)


def test_noisy_labels__several_labels_per_image():
    with pytest.raises(ValueError, match=r'one label per image \(image 0\), but got \[0, 1\]'):
        NoisyLabels(Images([[0, 1]] * 2), 0.5)


def test_noisy_labels__no_labels():
    class LabelMaps(BaseDataset):
        METAINFO = dict(classes=('road', 'sky'))

        def load_data_list(self):
            return [dict(seg_map_path='0.png')]

    with pytest.raises(ValueError, match='LabelMaps has no labels of images'):
        NoisyLabels(LabelMaps(), 0.5)
