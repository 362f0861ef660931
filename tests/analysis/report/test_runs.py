import pytest
import torch

from sar_mm.analysis.report.runs import check_task, classes_of, read_models, read_run
from sar_mm.checks import UsageError


def test_read_models__runs_that_differ_in_their_seed_are_one_model(work_folder, step):
    folders = [
        work_folder(f'{name}/s{seed}', [step(10)], seed=seed, name=name)
        for name in ('net', 'sar_net')
        for seed in (3, 4)
    ]
    models = read_models(folders)
    assert {title: [run.seed for run in runs] for title, runs in models.items()} == {'net': [3, 4], 'sar_net': [3, 4]}
    # A folder of work folders stands for them.
    assert read_models([folders[0].parent, folders[2].parent]).keys() == models.keys()
    assert list(read_models(folders, ['stock', 'SAR'])) == ['stock', 'SAR']


def test_read_models__titles_leave_out_what_is_common(work_folder):
    names = ['resnet18_1xb64-300iter_digits', 'sar_resnet18_1xb64-300iter_digits']
    folders = [work_folder(name, [], name=name) for name in names]
    assert list(read_models(folders)) == ['resnet18', 'sar_resnet18']
    assert list(read_models(folders[:1])) == names[:1]


def test_read_models__a_config_with_other_settings_is_another_model(work_folder):
    folders = [work_folder('a', []), work_folder('b', [], more='optim_wrapper = dict(lr=0.5)'), work_folder('c', [])]
    models = read_models(folders)
    assert {title: len(runs) for title, runs in models.items()} == {
        'net (as it is)': 2,
        'net (lr=0.5)': 1,
    }


def test_read_models__settings_of_the_run_make_no_other_model(work_folder):
    folders = [work_folder('a', [], more="work_dir = 'a'"), work_folder('b', [], more="load_from = 'x.pth'", seed=1)]
    assert len(read_models(folders)) == 1


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['a', 'b'], r'--names is to have a different name for each of the 1 models, net \(2 runs\)'),
        (['a', 'a'], '--names'),
    ],
)
def test_read_models__names_that_do_not_fit(work_folder, names, message):
    folders = [work_folder('a', []), work_folder('b', [], seed=1)]
    with pytest.raises(UsageError, match=message):
        read_models(folders, names)


def test_read_models__folders_without_a_training(work_folder, tmp_path):
    with pytest.raises(UsageError, match='there is no folder .*absent'):
        read_models([tmp_path / 'absent'])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UsageError, match='empty is not the work folder of a training'):
        read_models([tmp_path / 'empty'])


def test_read_run__how_far_it_got(work_folder, step, validation):
    run = read_run(work_folder('running', [step(8), validation(10)]))
    assert (run.done, run.length, run.unit, run.is_whole, run.checkpoint) == (10, 20, 'iteration', False, None)
    folder = work_folder('done', [step(18)])  # the last iteration need not be logged
    torch.save({}, folder / 'iter_20.pth')
    run = read_run(folder)
    assert (run.done, run.is_whole, run.checkpoint) == (20, True, str(folder / 'iter_20.pth'))
    folder = work_folder('epochs', [step(50, epoch=1), validation(1), step(70, epoch=2)], unit='max_epochs', length=3)
    assert (read_run(folder).done, read_run(folder).unit) == (1, 'epoch')
    torch.save({}, folder / 'epoch_3.pth')
    assert read_run(folder).is_whole
    assert read_run(work_folder('new')).done == 0


def test_read_run__damaged_checkpoints_are_none(work_folder, step):
    folder = work_folder('run', [step(10)])
    (folder / 'iter_10.pth').write_bytes(b'no checkpoint')
    assert read_run(folder).checkpoint is None


def test_classes_of__the_log_or_the_config(work_folder, validation):
    assert classes_of(read_models([work_folder('a', [])])) == ['cat', 'dog']
    logged = validation(10, **{'IoU/road': 50.0, 'IoU/sky': 40.0})
    assert classes_of(read_models([work_folder('b', [logged])])) == ['road', 'sky']


def test_classes_of__different_ones(work_folder):
    folders = [work_folder('a', []), work_folder('b', [], classes=('cat', 'cow'), name='other')]
    with pytest.raises(UsageError, match=r"different classes, \['cat', 'dog'\] \(.*a\) and \['cat', 'cow'\] \(.*b\)"):
        classes_of(read_models(folders))


def test_check_task__different_ones(work_folder):
    folders = [work_folder('a', []), work_folder('b', [], more="default_scope = 'mmseg'", name='other')]
    with pytest.raises(UsageError, match='different tasks, default_scope is mmpretrain .* and mmseg'):
        check_task(read_models(folders))
