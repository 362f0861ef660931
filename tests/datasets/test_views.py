from collections import Counter

import pytest
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from torch.utils.data import Dataset

from sar_mm.datasets import LabelledSubset, LongTailedDataset, SemiSupervisedDataset
from sar_mm.datasets.views import image_sources, prepare_image


class Numbers(BaseDataset):
    """40 images of two classes; the pipeline returns None for two thirds of them."""

    METAINFO = dict(classes=('a', 'b'))

    def load_data_list(self):
        return [dict(number=index, gt_label=index % 2) for index in range(40)]

    def get_cat_ids(self, idx):
        return [idx % 2]


def every_third(info):
    return info if info['number'] % 3 == 0 else None


def numbers(step=every_third, **options):
    return Numbers(pipeline=[step], **options)


def pack(info):
    return None if every_third(info) is None else dict(inputs=info['number'])


def two_views(info):
    return None if every_third(info) is None else dict(weak=info['number'], strong=info['number'])


def long_tailed(data):
    return LongTailedDataset(data, imbalance_factor=4)


def labelled(data):
    return LabelledSubset(data, 'labelled', per_class=5)


def unlabelled(data):
    return LabelledSubset(data, 'unlabelled', per_class=5)


VIEWS = dict(
    long_tailed=long_tailed,
    labelled=labelled,
    unlabelled=unlabelled,
    labelled_of_long_tailed=lambda data: labelled(long_tailed(data)),
    long_tailed_of_unlabelled=lambda data: long_tailed(unlabelled(data)),
)
WRAPPERS = dict(
    none=lambda data: data,
    repeated=lambda data: RepeatDataset(data, 2),
    joined=lambda data: ConcatDataset([data, numbers()]),
    balanced=lambda data: ClassBalancedDataset(data, oversample_thr=0.6),
)


@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize('make', VIEWS.values(), ids=VIEWS)
def test_view__a_rejected_image_is_replaced_by_the_next_one_it_shows(make, wrap):
    data = wrap(numbers())
    view = make(data)
    shown = [view.get_data_info(index)['number'] for index in range(len(view))]
    expected = []
    for place in range(len(shown)):
        later = shown[place:] + shown[:place]
        expected.append(next(number for number in later if number % 3 == 0))
    given = Counter(view[index]['number'] for index in range(len(view)))
    assert given == Counter(expected) and set(given) <= set(shown)


@pytest.mark.parametrize('name', ['long_tailed', 'labelled_of_long_tailed'])
def test_semi_supervised__parts_that_are_views_keep_to_their_images(name):
    parts = VIEWS[name](numbers(pack)), unlabelled(numbers(two_views))
    data = SemiSupervisedDataset(*parts, labelled_among_unlabelled=True)
    allowed = [{index for _, index in image_sources(part) if index % 3 == 0} for part in parts]
    samples = [data[index] for index in range(len(data))]
    given = [
        {sample.labelled['inputs'] for sample in samples[: data.num_labelled]},
        {sample.weak for sample in samples[data.num_labelled :]},
    ]
    assert given == allowed


@pytest.mark.parametrize('make', VIEWS.values(), ids=VIEWS)
def test_view__of_images_that_are_all_rejected(make):
    view = make(numbers(lambda info: None))
    with pytest.raises(RuntimeError, match=f'None for each of the {len(view)} images of {type(view).__name__}'):
        view[0]


def test_view__a_rejected_image_is_an_error_in_test_mode():
    view = long_tailed(numbers(test_mode=True))
    rejected = next(index for index, number in enumerate(view.indices.tolist()) if number % 3)
    with pytest.raises(Exception, match='Test time pip'):
        view[rejected]


def test_prepare_image__a_data_set_that_reads_in_its_own_way_is_asked():
    class Own(Numbers):
        def __getitem__(self, idx):
            return -idx

    class Plain(Dataset):
        def __getitem__(self, idx):
            return idx + 1

    assert prepare_image(Own(pipeline=[]), 3) == -3 and prepare_image(Plain(), 3) == 4


def test_view__may_be_derived_from():
    class Tagged(LongTailedDataset):
        def __getitem__(self, idx):
            return dict(super().__getitem__(idx), tag=idx)

    images = Numbers(pipeline=[])
    tagged = Tagged(images, imbalance_factor=2)
    assert [tagged[index]['tag'] for index in range(len(tagged))] == list(range(len(tagged)))
