"""What all views do; each has a file for what is its own."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from in_memory import LABELS, VIEWS, Images, LabelMaps, balanced, every_third, images, joined, noisy, part, repeated
from in_memory import long_tailed as tail
from mmengine.runner import Runner
from torch.utils.data import Dataset, Subset

from sar_mm.datasets import LabeledSubset, LongTailedDataset, NoisyLabels, SemiSupervisedDataset, class_counts
from sar_mm.datasets.views import DatasetView, image_sources, prepare_image
from sar_mm.registry import DATASETS

every_view = pytest.mark.parametrize('make', VIEWS.values(), ids=VIEWS)


def shown(view):
    return [view[index]['inputs'] for index in range(len(view))]


@every_view
def test_view__answers_for_the_images_it_shows(make):
    view = make(Images())
    labels = [view[index]['label'] for index in range(len(view))]
    assert shown(view) == view.indices.tolist() == sorted(set(shown(view)))
    assert view.get_gt_labels().tolist() == labels and view.get_gt_labels().dtype == np.int64
    assert [view.get_cat_ids(index) for index in range(len(view))] == [[label] for label in labels]
    infos = [view.get_data_info(index) for index in range(len(view))]
    assert [(info['number'], info['gt_label']) for info in infos] == list(zip(shown(view), labels))
    assert all(type(view.get_cat_ids(index)[0]) is int for index in range(len(view)))
    assert view[-1] == view[len(view) - 1] and view.get_data_info(-1) == infos[-1]
    with pytest.raises(IndexError):
        view[len(view)]
    counts = np.bincount(labels, minlength=3).tolist()
    assert view.metainfo == dict(Images().metainfo, class_counts=tuple(counts))
    assert all(type(count) is int for count in view.metainfo['class_counts'])
    assert class_counts(view) == counts


@every_view
def test_view__arrays_and_metainfo_are_copies(make):
    view = make(Images())
    labels, indices = view.get_gt_labels(), view.indices
    for values in (view.get_gt_labels(), view.indices):
        values[:] = 2
    view.metainfo['palette'].append(2)
    assert view.metainfo['palette'] == [1] == view.dataset.metainfo['palette']
    assert (view.get_gt_labels() == labels).all() and (view.indices == indices).all()


@every_view
def test_view__seed_decides_and_the_global_state_is_left_alone(make):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()
    views = [make(Images(), seed=seed) for seed in (0, 0, 1)]
    first, same, other = ([view[index] for index in range(len(view))] for view in views)
    assert first == same != other
    assert (np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()) == before


SCRIPT = """
from mmengine.dataset import BaseDataset
from sar_mm.datasets import LabeledSubset, LongTailedDataset, NoisyLabels
class Images(BaseDataset):
    def load_data_list(self): return [dict(gt_label=index % 3) for index in range(30)]
print(LongTailedDataset(Images(), 4).indices.tolist())
print(LabeledSubset(Images(), 'labeled', per_class=2).indices.tolist())
print(NoisyLabels(Images(), 0.5).get_gt_labels().tolist())
"""


def test_views__are_the_same_in_every_process(run_python):
    views = [VIEWS[name](Images([0, 1, 2] * 10)) for name in ('long_tailed', 'labeled', 'noisy')]
    expected = [views[0].indices, views[1].indices, views[2].get_gt_labels()]
    assert run_python(SCRIPT)[0] == [str(values.tolist()) for values in expected]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_views__work_in_a_dataloader(num_workers):
    view = DATASETS.build(noisy(tail(images())))
    config = dict(dataset=view, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=8)
    loader = Runner.build_dataloader(dict(config, num_workers=num_workers, collate_fn=dict(type='default_collate')))
    batches = list(loader)
    assert torch.cat([batch['inputs'] for batch in batches]).tolist() == shown(view)
    assert torch.cat([batch['label'] for batch in batches]).tolist() == view.get_gt_labels().tolist()


@every_view
@pytest.mark.parametrize('inner', ['plain', 'view'])
def test_view__lazy(make, inner):
    data = Images(lazy_init=True)
    data = data if inner == 'plain' else LongTailedDataset(Images(), 2)  # whose counts are not those of the view
    view = make(data, lazy_init=True)
    assert view.metainfo['classes'] == ('ant', 'bee', 'cat') and 'class_counts' not in view.metainfo
    assert len(view) == sum(view.metainfo['class_counts'])  # the first use loads


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


@pytest.mark.parametrize(
    ('wrap', 'counts'), [(tail, (12, 6, 3)), (lambda data: part('unlabeled', data), (8,) * 3), (noisy, (12,) * 3)]
)
@pytest.mark.parametrize('lazy_init', [False, True])
def test_view__of_mmpretrain_from_a_config(folder, wrap, counts, lazy_init):
    pytest.importorskip('mmpretrain.datasets')
    steps = [dict(type='mmpretrain.LoadImageFromFile'), dict(type='mmpretrain.PackInputs')]
    options = dict(pipeline=steps, lazy_init=lazy_init, serialize_data=False)
    inner = dict(type='mmpretrain.CustomDataset', data_prefix=str(folder), **options)
    view = DATASETS.build(dict(wrap(inner), lazy_init=lazy_init))
    assert len(view) == sum(counts) and view.metainfo['class_counts'] == counts
    assert list(view.metainfo['classes']) == ['ant', 'bee', 'cat']  # known after loading only
    samples = [view[index]['data_samples'] for index in range(len(view))]
    assert [sample.gt_label.item() for sample in samples] == view.get_gt_labels().tolist()
    assert samples[-1].img_path.startswith(str(folder / 'cat'))


REJECTING = dict(
    long_tailed=tail,
    unlabeled=lambda data: part('unlabeled', data),
    noisy=noisy,
    labeled_of_long_tailed=lambda data: part('labeled', tail(data), 1),
    long_tailed_of_unlabeled=lambda data: tail(part('unlabeled', data, 2)),
    noisy_of_labeled=lambda data: noisy(part('labeled', data)),
    noisy_of_noisy=lambda data: noisy(noisy(data)),
)
WRAPPERS = dict(
    none=lambda data: data,
    repeated=repeated,
    joined=lambda data: joined(images(pipeline=[every_third]), data),
    balanced=balanced,
)
# Each view without a wrapper, and each wrapper in some view; noisy labels take no wrapper.
PAIRS = [(view, 'none') for view in REJECTING]
PAIRS += [('long_tailed', wrapper) for wrapper in WRAPPERS if wrapper != 'none']
PAIRS += [('unlabeled', 'repeated'), ('labeled_of_long_tailed', 'joined'), ('long_tailed_of_unlabeled', 'balanced')]


@pytest.mark.parametrize('is_noisy', [False, True])
@pytest.mark.parametrize(('view', 'wrapper'), PAIRS)
def test_view__a_rejected_image_is_replaced_by_the_next_one_it_shows(view, wrapper, is_noisy):
    data = images(labels=[0, 1, 2] * 12, pipeline=[every_third])
    view = DATASETS.build(REJECTING[view](WRAPPERS[wrapper](noisy(data) if is_noisy else data)))
    all_shown = [view.get_data_info(index) for index in range(len(view))]
    expected = []
    for place in range(len(all_shown)):
        info = next(info for info in all_shown[place:] + all_shown[:place] if info['number'] % 3 == 0)
        expected.append((info['number'], info['gt_label']))
    given = [view[index] for index in range(len(view))]
    assert Counter((sample['inputs'], sample['label']) for sample in given) == Counter(expected)


@every_view
def test_view__of_images_that_are_all_rejected(make):
    view = make(Images(pipeline=[lambda info: None]))
    with pytest.raises(RuntimeError, match=f'None for each of the {len(view)} images of {type(view).__name__}'):
        view[0]


@pytest.mark.parametrize('make', [lambda data: data, VIEWS['noisy']], ids=['clean', 'noisy'])
def test_view__a_rejected_image_is_an_error_in_test_mode(make):
    view = LabeledSubset(make(Images(pipeline=[every_third], test_mode=True)), 'labeled', fraction=1)
    with pytest.raises(Exception, match='Test time pip|None for image 1 of NoisyLabels in test mode'):
        view[1]


def test_view__may_be_derived_from():
    class Tagged(LongTailedDataset):
        def __getitem__(self, idx):
            return dict(super().__getitem__(idx), tag=idx)

    tagged = Tagged(Images(), imbalance_factor=2)
    assert [tagged[index]['tag'] for index in range(len(tagged))] == list(range(len(tagged)))

    class Reversed(DatasetView):
        def select(self):
            return np.arange(len(self.dataset))[::-1], None, None

    assert shown(Reversed(Images())) == list(range(20))[::-1]


@pytest.mark.parametrize('make', [VIEWS['long_tailed'], VIEWS['labeled'], VIEWS['noisy']])
@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (lambda: 'CIFAR10', "Expected argument `dataset` to be a data set, or its config.*'CIFAR10'"),
        (lambda: Images([[0, 1]] * 2), r'one label per image \(image 0\), but got \[0, 1\]'),
        (lambda: Images([0, 1, 3]), r'labels of Images` to be in \[0, 3\), but got 3'),
        (lambda: LabelMaps(), 'LabelMaps has no labels of images'),
    ],
)
def test_view__of_other_data(make, data, message):
    with pytest.raises(ValueError, match=message):
        make(data())


@pytest.mark.parametrize('make', [VIEWS['long_tailed'], VIEWS['labeled'], VIEWS['noisy']])
def test_view__bad_seed(make):
    with pytest.raises(ValueError, match='Expected argument `seed` to be an integer of at least 0'):
        make(Images(), seed=-1)


def test_prepare_image__a_data_set_that_reads_in_its_own_way_is_asked():
    class Own(Images):
        def __getitem__(self, idx):
            return -idx

    class Plain(Dataset):
        def __getitem__(self, idx):
            return idx + 1

    assert prepare_image(Own(), 3) == -3 and prepare_image(Plain(), 3) == 4


def test_image_sources__look_into_wrappers():
    data, other = Images(), Images([0, 1, 2])
    wrapped = DATASETS.build(joined(repeated(other, 2), tail(data)))
    indices = LongTailedDataset(data, 4).indices.tolist()
    expected = [(other, index) for index in (0, 1, 2, 0, 1, 2)] + [(data, index) for index in indices]
    assert image_sources(Subset(wrapped, [7, 2])) == [expected[7], expected[2]]
    assert image_sources(wrapped) == expected


def test_semi_supervised__parts_that_are_views_keep_to_their_images():
    def two_views(info):
        return None if info['number'] % 3 else dict(weak=info['number'], strong=info['number'])

    parts = [DATASETS.build(part('labeled', tail(images(pipeline=[every_third])), 1))]
    parts.append(LabeledSubset(Images(pipeline=[two_views]), 'unlabeled', per_class=3))
    data = SemiSupervisedDataset(*parts, labeled_among_unlabeled=True)
    samples = [data[index] for index in range(len(data))]
    given = [{sample.labeled['inputs'] for sample in samples[: data.num_labeled]}]
    given.append({sample.weak for sample in samples[data.num_labeled :]})
    assert given == [{index for _, index in image_sources(each) if index % 3 == 0} for each in parts]


def test_noisy_labels__show_all_images():
    assert shown(NoisyLabels(Images(), 0.5)) == list(range(len(LABELS)))
