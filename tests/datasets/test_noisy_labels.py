from types import SimpleNamespace

import numpy as np
import pytest
from in_memory import (
    LABELS,
    Images,
    balanced,
    images,
    joined,
    long_tailed,
    noisy,
    part,
    repeated,
    semi_supervised,
    shuffled,
)
from torch import nn
from torch.utils.data import Subset

from sar_mm.datasets import ClassPowerSampler, LongTailedDataset, NoisyLabels, class_counts, distinct_class_counts
from sar_mm.datasets.noisy_labels import flip_labels
from sar_mm.engine.hooks import ClassCountsHook
from sar_mm.registry import DATASETS

SIZES = [10, 6, 4]
# Half of them, 5, 3 and 2, go to the next class.
PAIRED = [10 - 5 + 2, 6 - 3 + 5, 4 - 2 + 3]
KINDS = ('symmetric', 'pairwise')


def two_views(info):
    return dict(weak=info['number'], strong=info['number'])


def unlabeled_images():
    return images(pipeline=[two_views])


# A config, its counts as training sees them, and those of distinct images.
COMBINATIONS = dict(
    alone=(noisy(images()), PAIRED, PAIRED),
    symmetric_rate_0=(noisy(images(), 0, 'symmetric'), SIZES, SIZES),
    repeated=(repeated(noisy(images())), PAIRED, PAIRED),
    # Of the noisy classes, only the last one, of frequency 5 / 20, is below the threshold: its images come twice.
    balanced=(balanced(noisy(images())), [7, 8, 10], PAIRED),
    repeated_balanced=(repeated(balanced(noisy(images()))), [7, 8, 10], PAIRED),
    joined=(joined(noisy(images()), noisy(images(), seed=1)), [14, 16, 10], [14, 16, 10]),
    joined_with_clean=(joined(noisy(images()), images()), [17, 14, 9], [17, 14, 9]),
    joined_same_files=(joined(noisy(images(folder='x')), noisy(images(folder='x'))), [14, 16, 10], PAIRED),
    joined_repeated=(joined(repeated(noisy(images())), images()), [31, 30, 19], [17, 14, 9]),
    in_long_tailed=(long_tailed(noisy(images())), [7, 3, 1], [7, 3, 1]),
    in_labeled=(part('labeled', noisy(images())), [4, 4, 4], [4, 4, 4]),
    in_unlabeled=(part('unlabeled', noisy(images())), [3, 4, 1], [3, 4, 1]),
    in_labeled_of_long_tailed=(part('labeled', long_tailed(noisy(images())), 1), [1, 1, 1], [1, 1, 1]),
    in_long_tailed_of_repeated=(long_tailed(repeated(noisy(images()))), [21, 10, 5], None),
    # The long-tailed view has 10, 5 and 2 images, of which 5, 2 and 1 are changed.
    of_long_tailed=(noisy(long_tailed(images())), [6, 8, 3], [6, 8, 3]),
    of_labeled=(noisy(part('labeled', images())), [4, 4, 4], [4, 4, 4]),
    # 8, 4 and 2 images, of which 4, 2 and 1 are changed.
    of_unlabeled=(noisy(part('unlabeled', images(), 2)), [5, 6, 3], [5, 6, 3]),
    # Of 7, 8 and 5 labels, 4 (3.5, to even), 4 and 2 are changed again.
    of_noisy=(noisy(noisy(images(), seed=1)), [5, 8, 7], [5, 8, 7]),
    semi_supervised=(
        semi_supervised(noisy(part('labeled', images(), 3), 0.3), part('unlabeled', unlabeled_images(), 3)),
        [3, 3, 3],
        [3, 3, 3],
    ),
    semi_supervised_around=(
        semi_supervised(part('labeled', noisy(images()), 2), part('unlabeled', noisy(unlabeled_images()), 2)),
        [2, 2, 2],
        [2, 2, 2],
    ),
)


@pytest.mark.parametrize(('config', 'seen', 'distinct'), COMBINATIONS.values(), ids=COMBINATIONS)
def test_noisy_labels__counts_pipelines_annotations_and_samplers_have_the_noisy_labels(config, seen, distinct):
    data = DATASETS.build(config)
    assert class_counts(data) == seen
    labeled = getattr(data, 'labeled', data)
    samples = [labeled[index] for index in range(len(labeled))]
    given = [sample['label'] for sample in samples]
    if distinct is None:  # which of the repeated images the view took is up to the drawing
        label_of = {sample['inputs']: sample['label'] for sample in samples}
        distinct = np.bincount(list(label_of.values()), minlength=3).tolist()
    assert distinct_class_counts(data) == distinct
    assert [labeled.get_data_info(index)['gt_label'] for index in range(len(labeled))] == given
    while config['type'] == 'RepeatDataset':  # its rounds do not count
        seen, config = [3 * count for count in seen], config['dataset']
    assert np.bincount(given, minlength=3).tolist() == seen
    if labeled is data:
        sampler = ClassPowerSampler(data, power=0, seed=0)
        assert sampler._counts.tolist() == np.bincount(given).tolist()
        assert (np.array(given)[sampler._by_class.numpy()] == np.sort(given)).all()


@pytest.mark.parametrize('name', [name for name in COMBINATIONS if name.startswith(('in_', 'repeated', 'balanced'))])
def test_noisy_labels__wrappers_show_the_labels_that_it_drew(name):
    drawn = NoisyLabels(Images(), 0.5, 'pairwise').get_gt_labels()
    data = DATASETS.build(COMBINATIONS[name][0])
    samples = [data[index] for index in range(len(data))]
    assert all(sample['label'] == drawn[sample['inputs']] for sample in samples)
    assert any(sample['label'] != LABELS[sample['inputs']] for sample in samples)


class Counts(nn.Module):
    def set_class_counts(self, counts):
        self.counts = counts


@pytest.mark.parametrize('name', ['balanced', 'of_long_tailed', 'semi_supervised'])
def test_noisy_labels__class_counts_hook(name):
    config, seen, _ = COMBINATIONS[name]
    model = Counts()
    loops = dict(_train_loop=None, _val_loop=None, _test_loop=None)
    ClassCountsHook().before_run(SimpleNamespace(model=model, _train_dataloader=dict(dataset=config), **loops))
    assert model.counts == seen


def test_noisy_labels__parts_that_share_images_are_an_error():
    with pytest.raises(ValueError, match='20 of the 20 labeled images are unlabeled, too: image 0 of Images'):
        DATASETS.build(semi_supervised(noisy(images()), noisy(unlabeled_images())))


def test_noisy_labels__join_needs_ignore_keys():
    config = dict(type='ConcatDataset', datasets=[noisy(images()), noisy(images(), 0.2)])
    with pytest.raises(ValueError, match='does not match meta information of the first'):
        DATASETS.build(config)


def test_noisy_labels__torch_subset():
    data = DATASETS.build(noisy(images()))
    assert [sample['label'] for sample in Subset(data, [3, 1])] == [data[3]['label'], data[1]['label']]


@pytest.mark.parametrize(('index', 'rate'), enumerate([0, 0.1, 0.25, 0.45, 0.5, 0.99]))
def test_noisy_labels__exactly_the_share_of_each_class(index, rate):
    view = NoisyLabels(Images(), rate, KINDS[index % 2])
    clean = np.array(LABELS)
    assert np.bincount(clean[view.is_noisy], minlength=3).tolist() == [round(rate * size) for size in SIZES]
    assert (view.clean_labels == clean).all() and view.is_noisy.dtype == bool
    assert ((view.get_gt_labels() != clean) == view.is_noisy).all()
    for values in (view.clean_labels, view.is_noisy):  # copies
        values[:] = 1
    assert (view.clean_labels == clean).all() and view.is_noisy.sum() == sum(round(rate * size) for size in SIZES)


def test_noisy_labels__the_data_set_underneath_stays_as_it_is():
    view = NoisyLabels(Images(), 0.5)
    index = int(np.flatnonzero(view.is_noisy)[0])
    assert view.get_data_info(index)['gt_label'] != LABELS[index] == view.dataset.get_data_info(index)['gt_label']


def test_flip_labels__pairwise_goes_to_the_next_class():
    labels = np.array(shuffled([200, 100, 50, 10]))
    wrong = flip_labels(labels, 4, 0.3, 'pairwise')
    changed = wrong != labels
    assert np.bincount(labels[changed]).tolist() == [60, 30, 15, 3]
    assert (wrong[changed] == (labels[changed] + 1) % 4).all()


def test_flip_labels__symmetric_goes_to_each_other_class_alike():
    labels = np.array(shuffled([6000] * 4))
    wrong = flip_labels(labels, 4, 0.3, 'symmetric')
    transitions = np.zeros((4, 4), dtype=int)
    np.add.at(transitions, (labels, wrong), 1)
    assert np.diag(transitions).tolist() == [4200] * 4
    # 1800 of a class at 1/3 each: a standard deviation of 20.
    assert np.abs(transitions[~np.eye(4, dtype=bool)] - 600).max() < 80


def test_flip_labels__a_class_without_images_may_be_the_wrong_one():
    assert set(flip_labels(np.zeros(90, dtype=np.int64), 3, 0.5).tolist()) == {0, 1, 2}


@pytest.mark.parametrize('kind', KINDS)
def test_flip_labels__higher_rate_changes_the_same_and_more(kind):
    labels = before = np.array(shuffled([50, 40, 30]))
    for rate in (0.1, 0.3, 0.31, 0.8):
        wrong = flip_labels(labels, 3, rate, kind)
        was_changed = before != labels
        assert (wrong[was_changed] == before[was_changed]).all()
        assert (wrong != labels).sum() > was_changed.sum()
        before = wrong


@pytest.mark.parametrize('kind', KINDS)
def test_flip_labels__a_class_does_not_depend_on_the_others(kind):
    labels = np.array(shuffled([50, 50, 50]))
    # The images of class 1 stay where they are, the others change their labels.
    other = np.where(labels == 1, 1, 2 - labels)
    first, second = (flip_labels(each, 3, 0.4, kind) for each in (labels, other))
    assert (first[labels == 1] == second[labels == 1]).all()
    is_zero = labels == 0
    assert ((first != labels) != (second != other))[is_zero].any()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(rate=1), r'Expected argument `rate` to be a number in \[0, 1\), but got 1'),
        (dict(rate=-0.1), r'Expected argument `rate` to be a number in \[0, 1\), but got -0.1'),
        (dict(rate=float('nan')), r'Expected argument `rate` to be a number in \[0, 1\), but got nan'),
        (dict(rate='0.4'), "Expected argument `rate`.*'0.4'"),
        (dict(rate=False), 'Expected argument `rate`.*False'),
        (dict(kind='symetric'), r"`kind` to be one of .*, but got 'symetric'; did you mean symmetric\?"),
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
