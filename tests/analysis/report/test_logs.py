import math

import pytest

from sar_mm.analysis.report.logs import read_log, task_loss


def test_read_log__training_and_validation(work_folder, step, validation):
    folder = work_folder('run', [step(10, 2.0), validation(10, 40.0), step(20, float('nan'))])
    log = read_log(folder)
    assert list(log.train) == [10, 20] and log.train[10]['loss'] == 2.0 and math.isnan(log.train[20]['loss'])
    assert {at: values['accuracy/top1'] for at, values in log.val.items()} == {10: 40.0}


def test_read_log__what_was_trained_again_replaces_what_was_lost(work_folder, step, validation):
    killed = [step(10, 2.0), validation(10, 40.0), step(20, 1.5), validation(20, 45.0), step(30, 1.2)]
    resumed = [validation(20, 46.0), step(30, 1.3), validation(30, 50.0)]
    log = read_log(work_folder('run', killed, resumed))
    assert {at: values['loss'] for at, values in log.train.items()} == {10: 2.0, 20: 1.5, 30: 1.3}
    assert {at: values['accuracy/top1'] for at, values in log.val.items()} == {10: 40.0, 20: 46.0, 30: 50.0}


def test_read_log__a_training_that_started_anew(work_folder, step, validation):
    log = read_log(work_folder('run', [step(10, 2.0), step(20), validation(20)], [step(10, 3.0)]))
    assert {at: values['loss'] for at, values in log.train.items()} == {10: 3.0} and log.val == {}


def test_read_log__validations_by_epoch_are_placed_at_the_iteration_before(work_folder, step, validation):
    lines = [step(50, epoch=1), validation(1), step(120, epoch=2), validation(2)]
    assert list(read_log(work_folder('run', lines)).val) == [50, 120]
    # Right after a start that resumes, nothing says where: the same validation is there already.
    resumed = [validation(2), step(190, epoch=3), validation(3)]
    assert list(read_log(work_folder('resumed', lines, resumed)).val) == [50, 120, 190]


def test_read_log__validations_before_the_first_logged_step(work_folder, step, validation):
    lines = [validation(50), step(100), validation(100)]
    assert list(read_log(work_folder('run', lines)).val) == [50, 100]


def test_read_log__a_line_that_was_not_written_to_its_end(work_folder, step):
    log = read_log(work_folder('run', [step(10), '{"lr": 0.1, "loss": 0.']))
    assert list(log.train) == [10]
    assert read_log(work_folder('empty', [])) == ({}, {})


# ----- The task's loss


def test_task_loss__of_segmentation_is_the_sum_without_the_anchors(step):
    values = {'decode.loss_ce': 1.0, 'aux.loss_ce': 0.5, 'decode.loss_anchor': 0.2, 'decode.loss_pull': 0.05}
    assert task_loss({10: step(10, 1.75, **values)})[10] == pytest.approx(1.5)


def test_task_loss__of_classification_is_what_its_head_calls_loss(step):
    assert task_loss({10: step(10, 0.7, loss_anchor=0.3, loss_pull=0.1), 20: step(20, 0.6)}) == {10: 0.7, 20: 0.6}


def test_task_loss__of_semi_supervised_classification_has_the_unlabeled_part(step):
    assert task_loss({10: step(10, 0.5, loss_unsup=0.25, loss_pull=0.1)}) == {10: 0.75}


def test_task_loss__of_stock_models(step):
    assert task_loss({10: step(10, 0.7)}) == {10: 0.7}
    assert task_loss({10: step(10, 1.5, **{'decode.loss_ce': 1.0, 'aux.loss_ce': 0.5})}) == {10: 1.5}
    assert task_loss({}) == {}
