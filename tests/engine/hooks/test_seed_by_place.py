import pytest
import torch
from mmengine.runner import FlexibleRunner, Runner
from small_runs import read, same

from sar_mm.engine.runner import ResumableRunner


@pytest.mark.parametrize(
    'kind, workers, by_epoch, stop, end',
    [
        (Runner, 1, False, 'iter_4', 'iter_9'),
        (Runner, 0, True, 'epoch_3', 'epoch_5'),
        (FlexibleRunner, 0, False, 'iter_4', 'iter_9'),
        (FlexibleRunner, 0, True, 'epoch_3', 'epoch_5'),
    ],
)
def test_seed_by_place_hook__makes_other_runners_resume_as_well(make_runner, by_epoch, stop, end, kind, workers):
    until = 5 if by_epoch else 9
    runs = []
    for each in (kind, ResumableRunner):
        torch.manual_seed(0)  # the models start alike
        runs.append(make_runner(each.__name__, until, by_epoch, kind=each, workers=workers))
        runs[-1].train()
    whole, own = runs
    assert same(read(whole, end), read(own, end))
    path = f'{whole.work_dir}/{stop}.pth'
    resumed = make_runner('resumed', until, by_epoch, resume=True, load_from=path, kind=kind, workers=workers)
    resumed.train()
    assert same(read(resumed, end), read(whole, end))
