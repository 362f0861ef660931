import os

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

import sar_mm  # noqa: F401

pytestmark = pytest.mark.skipif(
    not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'),
    reason='this PyTorch reads checkpoints unchecked',
)


def test_allow_mmengine_checkpoints__logs_and_numbers_of_numpy_are_read(tmp_path):
    log = HistoryBuffer()
    for value in (1.0, 2, np.float64(6.0)):
        log.update(value)
    content = dict(log=log, score=np.float64(0.5), count=np.int64(3), flag=np.bool_(True), half=np.float32(0.25))
    torch.save(content, tmp_path / 'run.pth')
    read = torch.load(tmp_path / 'run.pth', weights_only=True)
    assert read['log'].statistics('mean', 2) == 4 and read['log'].current() == 6
    assert (read['score'], read['count'], read['flag'], read['half']) == (0.5, 3, True, 0.25)


class Attribute:
    """Pickled as the attribute of an object, which may be anything that a pickle can get hold of."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


@pytest.mark.parametrize('owner, name', [(HistoryBuffer, '__init__'), (np.ndarray, 'tofile'), (torch.Tensor, 'numpy')])
def test_allow_mmengine_checkpoints__no_other_attribute_is_reached(owner, name, tmp_path):
    torch.save(dict(attribute=Attribute(owner, name)), tmp_path / 'run.pth')
    with pytest.raises(Exception, match=f'{name}|Unsupported|Weights only load failed'):
        torch.load(tmp_path / 'run.pth', weights_only=True)


class Command:
    def __reduce__(self):
        return os.system, ('touch /tmp/should-not-be-there',)


def test_allow_mmengine_checkpoints__code_is_not_run(tmp_path):
    torch.save(dict(command=Command()), tmp_path / 'run.pth')
    with pytest.raises(Exception, match='Weights only load failed'):
        torch.load(tmp_path / 'run.pth', weights_only=True)
