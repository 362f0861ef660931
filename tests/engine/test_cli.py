import threading
from datetime import timedelta

import pytest
import torch.distributed

from sar_mm.engine.cli import UsageError, _meet, usage_errors

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason='PyTorch is built without distributed')


def meet(store, ranks, world_size):
    names = {}

    def run(rank):
        names[rank] = _meet(store, rank, world_size)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return names


def test_meet__each_start_has_a_name_of_its_own():
    """The store is torchrun's, which keeps what was written to it when it starts the processes again."""
    store = torch.distributed.HashStore()
    first, second = meet(store, [2, 0, 1], 3), meet(store, [0, 1, 2], 3)
    assert sorted(first) == sorted(second) == [0, 1, 2]
    assert len(set(first.values())) == len(set(second.values())) == 1
    assert first[0] != second[0]


def test_meet__the_main_process_waits_for_those_of_its_own_start():
    store = torch.distributed.HashStore()
    store.set_timeout(timedelta(seconds=0.5))
    store.set('waiting/1', 'killed before it met the others')
    with pytest.raises(TimeoutError, match=r'processes \[1\] have not come within 0:00:00.5'):
        _meet(store, 0, 2)
    store.set_timeout(timedelta(seconds=20))
    names = meet(store, [0, 1], 2)
    assert len(names) == 2 and len(set(names.values())) == 1


@pytest.mark.parametrize('rank, start', [('0', 'error: '), ('3', 'error of rank 3: ')])
def test_usage_errors__say_which_process_has_one(rank, start, monkeypatch, capsys):
    monkeypatch.setenv('RANK', rank)
    with pytest.raises(SystemExit) as stopped, usage_errors():
        raise UsageError('there is no image on this node')
    assert stopped.value.code == 2 and capsys.readouterr().err == f'\n{start}there is no image on this node\n'
