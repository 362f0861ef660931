import pytest

from sar_mm.analysis.report.runs import read_run
from sar_mm.analysis.report.scores import (
    bounds_of,
    geometry_rows,
    last_scores,
    mean_and_spread,
    measure_of,
    of_class,
    repeated,
    score_rows,
)


def test_last_scores__without_times_and_classes(work_folder, validation):
    of_classes = {'accuracy/cat': 30.0, 'accuracy/dog': 90.0, 'geometry/nc1_cdnv': 0.5, 'mIoU/rare': 3.0}
    run = read_run(work_folder('run', [validation(10, 40.0), validation(20, 60.0, **of_classes)]))
    assert last_scores(run) == {'accuracy/top1': 60.0, 'geometry/nc1_cdnv': 0.5, 'mIoU/rare': 3.0}
    assert of_class(run, ['cat', 'dog']) == [30.0, 90.0]
    assert of_class(run, ['cat', 'cow']) is None
    assert last_scores(read_run(work_folder('new'))) == {}


@pytest.mark.parametrize(
    ('values', 'digits', 'text'),
    [
        ([], 2, '–'),
        ([float('nan')], 2, '–'),
        ([71.26], 2, '71.26'),
        ([70.0, 72.0, 74.0], 2, '72.00 ± 2.00'),
        ([0.25, float('nan'), 0.35], 3, '0.300 ± 0.071'),
        ([-0.05], 4, '-0.0500'),
    ],
)
def test_mean_and_spread(values, digits, text):
    assert mean_and_spread(values, digits) == text


def test_score_rows__have_the_same_digits_in_all_columns():
    models = dict(stock=[{'mIoU': 0.25, 'own': 0.01}], SAR=[{'mIoU': 47.0, 'own': 0.5}])
    texts = {row.name: [cell.text for cell in row.cells] for row in score_rows(models)}
    assert texts == {'mIoU': ['0.25', '47.00'], 'own': ['0.010', '0.500']}


def test_score_rows__show_the_accuracy_once():
    same = {'accuracy/top1': 40.0, 'accuracy': 40.0, 'balanced_accuracy': 40.0}
    shown = [row.name for row in score_rows(dict(stock=[same], SAR=[same]))]
    assert shown == ['accuracy/top1', 'balanced_accuracy']
    # One run says something else, or has no other accuracy.
    for other in ({'accuracy/top1': 40.0, 'accuracy': 41.0}, {'accuracy': 40.0}):
        assert 'accuracy' in [row.name for row in score_rows(dict(stock=[same], SAR=[other]))]
    assert repeated([]) == set()


def test_bounds_of__scores_in_percent():
    assert bounds_of('accuracy/top1') == bounds_of('mIoU/rare') == (0, 100) and bounds_of('own') is None
    assert measure_of('mIoU') == 'mIoU (%)' and measure_of('own') == 'own'


def test_score_rows__mark_the_best_mean():
    models = dict(stock=[{'mIoU': 40.0}, {'mIoU': 50.0}], SAR=[{'mIoU': 47.0, 'own': 1.0}], other=[{}])
    first, own = score_rows(models)
    assert first.better == 'higher' and [cell.is_best for cell in first.cells] == [False, True, False]
    assert [cell.text for cell in first.cells] == ['45.00 ± 7.07', '47.00', '–']
    # Nothing is known of it.
    assert own.better == '' and not any(cell.is_best for cell in own.cells)
    (equal,) = score_rows(dict(a=[{'mIoU': 1.0}], b=[{'mIoU': 1.0}]))
    assert not any(cell.is_best for cell in equal.cells)


def test_geometry_rows__lower_is_better_where_that_is_known():
    numbers = {'geometry/nc1_cdnv': 0.5, 'geometry/norm_mean': 3.0, 'geometry/classes_seen': 10, 'mIoU': 1.0}
    models = dict(stock=[numbers], SAR=[{'geometry/nc1_cdnv': 0.2, 'geometry/norm_mean': 2.0}])
    rows = {row.name: row for row in geometry_rows(models)}
    assert list(rows) == ['nc1_cdnv', 'norm_mean']
    assert rows['nc1_cdnv'].better == 'lower' and [cell.is_best for cell in rows['nc1_cdnv'].cells] == [False, True]
    assert rows['norm_mean'].better == '' and not any(cell.is_best for cell in rows['norm_mean'].cells)
