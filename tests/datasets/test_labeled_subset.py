import json

import numpy as np
import pytest
from in_memory import Images, LabelMaps, shuffled

from sar_mm.datasets import LabeledSubset, LongTailedDataset, class_counts


def both(data, **options):
    return [LabeledSubset(data, part, **options) for part in ('labeled', 'unlabeled')]


@pytest.mark.parametrize(
    ('options', 'counts'), [(dict(per_class=4), [4, 4, 4]), (dict(fraction=0.25), [10, 5, 2])], ids=str
)
def test_labeled_subset__parts_share_nothing_and_are_all(options, counts):
    labeled, unlabeled = both(Images(shuffled([40, 20, 8])), **options)
    assert class_counts(labeled) == list(labeled.metainfo['class_counts']) == counts
    assert class_counts(unlabeled) == [total - count for total, count in zip([40, 20, 8], counts)]
    assert sorted([*labeled.indices, *unlabeled.indices]) == list(range(68))


@pytest.mark.parametrize('content', ['5\n0\n2\n', json.dumps(dict(label=[5, 0, 2]))])
def test_labeled_subset__file(tmp_path, content):
    path = tmp_path / 'labeled.txt'
    path.write_text(content)
    labeled, unlabeled = both(Images([0, 1, 0, 1, 0, 1, 1]), file=str(path))
    assert labeled.indices.tolist() == [0, 2, 5] and unlabeled.indices.tolist() == [1, 3, 4, 6]
    assert labeled.metainfo['class_counts'] == (2, 1, 0)


def test_labeled_subset__file_beyond_the_data_set(tmp_path):
    (tmp_path / 'list').write_text('0\n7\n')
    with pytest.raises(ValueError, match='list lists image 7, but Images has 7 images'):
        LabeledSubset(Images([0, 1, 0, 1, 0, 1, 1]), 'labeled', file=str(tmp_path / 'list'))


def test_labeled_subset__file_needs_no_labels(tmp_path):
    (tmp_path / 'list').write_text('0\n4\n')
    view = LabeledSubset(LabelMaps(), 'labeled', file=str(tmp_path / 'list'))
    assert len(view) == 2 and view.get_data_info(1)['img_path'] == '4.jpg'
    assert 'class_counts' not in view.metainfo
    for ask in (lambda: view.get_cat_ids(0), view.get_gt_labels):
        with pytest.raises(NotImplementedError, match='LabelMaps has no labels of images'):
            ask()
    with pytest.raises(ValueError, match='no labels of images to count'):
        class_counts(view)


def test_labeled_subset__file_goes_with_several_labels_per_image(tmp_path):
    (tmp_path / 'list').write_text('0\n2\n')
    view = LabeledSubset(Images([[0, 1], [2], [1]]), 'labeled', file=str(tmp_path / 'list'))
    assert [view.get_cat_ids(index) for index in range(2)] == [[0, 1], [1]]
    assert 'class_counts' not in view.metainfo and class_counts(view) == [1, 2, 0]


def test_labeled_subset__of_a_long_tailed_view():
    data = LongTailedDataset(Images(shuffled([100, 100, 100])), imbalance_factor=25)
    labeled, unlabeled = both(data, fraction=0.1)
    assert data.metainfo['class_counts'] == (100, 20, 4)
    assert labeled.metainfo['class_counts'] == (10, 2, 1) and class_counts(unlabeled) == [90, 18, 3]
    shown = [view[index]['inputs'] for view in (labeled, unlabeled) for index in range(len(view))]
    assert sorted(shown) == data.indices.tolist()


def test_labeled_subset__labels_of_an_empty_part():
    view = LabeledSubset(Images(), 'unlabeled', fraction=1)
    assert len(view) == 0 and view.get_gt_labels().dtype == np.int64 and view.metainfo['class_counts'] == (0, 0, 0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(part='test'), r"Expected argument `part` to be one of \('labeled', 'unlabeled'\), but got 'test'"),
        (dict(per_class=0), 'Expected argument `per_class` to be an integer of at least 1, but got 0'),
        (dict(per_class=None, fraction=0), r'Expected argument `fraction` to be a number in \(0, 1\], but got 0'),
        (dict(per_class=None, fraction='1/4'), 'Expected argument `fraction`'),
        (dict(fraction=0.5), r"exactly one of .* but got \['per_class', 'fraction'\]"),
        (dict(per_class=None), 'exactly one of `per_class`, `fraction` and `file`, but got none'),
        (dict(per_class=9), r'class 1 \(bee\) has 8 images, but 9 are to be drawn'),
    ],
)
def test_labeled_subset__bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        LabeledSubset(Images(shuffled([10, 8, 9])), **{'part': 'labeled', 'per_class': 2, **options})
