import os
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR
from mmengine.runner import CheckpointLoader

from sar_mm.engine.safe_checkpoints import (
    FORCE,
    TRUST,
    CheckpointError,
    Unknown,
    read_checkpoint,
    safe_checkpoints,
    safe_loading,
    unreadable,
)

pytestmark = pytest.mark.skipif(
    not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'),
    reason='this PyTorch reads checkpoints unchecked',
)


@pytest.fixture
def load(tmp_path):
    def load(content):
        torch.save(content, tmp_path / 'run.pth')
        with safe_checkpoints():
            return CheckpointLoader.load_checkpoint(str(tmp_path / 'run.pth'))

    return load


def test_safe_checkpoints__logs_and_numbers_of_numpy_are_read(load):
    log = HistoryBuffer()
    for value in (1.0, 2, np.float64(6.0)):
        log.update(value)
    read = load(dict(log=log, score=np.float64(0.5), count=np.int64(3), flag=np.bool_(True), half=np.float16(0.25)))
    assert read['log'].statistics('mean', 2) == 4 and read['log'].current() == 6
    assert (read['score'], read['count'], read['flag'], read['half']) == (0.5, 3, True, 0.25)


def test_safe_checkpoints__what_else_configs_bring_about_is_read(load):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = OneCycleLR(optimizer, eta_max=1, total_steps=5).state_dict()
    metainfo = dict(groups=ConfigDict(rare=dict(members=[1, 2])), range=range(2, 9), classes=np.array(['a', 'bc']))
    read = load(dict(metainfo, schedule=schedule, half=np.zeros(2, np.complex64)))
    assert read['groups'].rare.members == [1, 2] and read['range'] == range(2, 9)
    assert read['classes'].tolist() == ['a', 'bc']
    assert read['schedule'] == schedule


class Attribute:
    """Pickled as the attribute of an object, which may be anything that a pickle can get hold of."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


class Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_safe_checkpoints__code_is_not_run(load, tmp_path):
    with pytest.raises(CheckpointError, match=rf'(?s)system.*if you trust where it comes from, set {TRUST}=1'):
        load(dict(command=Command(tmp_path / 'was-run')))
    assert not (tmp_path / 'was-run').exists()


@pytest.mark.parametrize('owner, name', [(HistoryBuffer, '__init__'), (HistoryBuffer, '__reduce__')])
def test_safe_checkpoints__no_other_attribute_is_reached(owner, name, tmp_path):
    torch.save(dict(attribute=Attribute(owner, name)), tmp_path / 'run.pth')
    with pytest.raises((CheckpointError, ValueError), match=name), safe_checkpoints():
        torch.load(tmp_path / 'run.pth')


def test_safe_checkpoints__leave_no_trace(load, monkeypatch):
    before = set(map(str, torch.serialization.get_safe_globals()))
    load(dict(weight=torch.ones(2)))
    assert set(map(str, torch.serialization.get_safe_globals())) == before and FORCE not in os.environ
    monkeypatch.setenv(FORCE, '0')
    load(dict(weight=torch.ones(2)))
    assert os.environ[FORCE] == '0'


def test_safe_checkpoints__within_another(tmp_path):
    log = HistoryBuffer()
    log.update(1.0)
    torch.save(dict(log=log), tmp_path / 'run.pth')
    with safe_checkpoints():
        with safe_checkpoints():
            pass
        assert torch.load(tmp_path / 'run.pth')['log'].current() == 1


def test_safe_checkpoints__a_trusted_file_is_unpickled(tmp_path):
    """In a process of its own, as it is the environment of a run that says so."""
    path, mark = tmp_path / 'run.pth', tmp_path / 'was-run'
    torch.save(dict(command=Command(mark)), path)
    code = (
        'from mmengine.runner import CheckpointLoader as Loader; from sar_mm.engine.safe_checkpoints import *\n'
        f'with safe_checkpoints(): Loader.load_checkpoint({str(path)!r})'
    )
    subprocess.run([sys.executable, '-c', code], env={**os.environ, TRUST: '1'}, check=True, stderr=subprocess.PIPE)
    assert mark.exists()


def test_safe_loading__is_for_checkpoints_only(tmp_path):
    """What a data set reads by itself is its own business."""
    path, mark = str(tmp_path / 'run.pth'), tmp_path / 'was-run'
    torch.save(dict(command=Command(mark)), path)
    before = CheckpointLoader.load_checkpoint
    with safe_loading():
        with pytest.raises(CheckpointError, match='system'):
            CheckpointLoader.load_checkpoint(path)
        assert not mark.exists()
        torch.load(path, weights_only=False)
        assert mark.exists()
    assert CheckpointLoader.load_checkpoint == before


def test_unreadable__names_what_is_refused(tmp_path):
    torch.save(dict(log=HistoryBuffer(), range=range(2)), tmp_path / 'good.pth')
    torch.save(dict(number=Decimal(1), path=tmp_path), tmp_path / 'bad.pth')
    assert unreadable(str(tmp_path / 'good.pth')) == []
    names = unreadable(str(tmp_path / 'bad.pth'))
    assert 'decimal.Decimal' in names and len(names) == 2


def test_read_checkpoint__what_is_refused_can_be_skipped(tmp_path):
    path, log = str(tmp_path / 'run.pth'), HistoryBuffer()
    log.update(1.0)
    torch.save(dict(log=log, weight=torch.ones(2), number=Decimal(1)), path)
    with pytest.raises(CheckpointError, match='run.pth cannot be read as a checkpoint: .*Decimal'):
        read_checkpoint(path)
    checkpoint = read_checkpoint(path, skip_unknown=True)
    assert checkpoint['log'].current() == 1 and checkpoint['weight'].tolist() == [1, 1]
    assert isinstance(checkpoint['number'], Unknown)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match='it holds a list, not a dict'):
        read_checkpoint(path)
