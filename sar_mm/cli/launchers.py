"""Launchers: what ``--launcher pytorch`` needs besides what mmengine does."""

import atexit
import logging
import os
import sys
import time
import uuid
from datetime import timedelta
from typing import Any

import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch.nn.parallel import DistributedDataParallel

from ..checks import UsageError
from ..engine.data_parallel import SARDistributedDataParallel


def prepare_launcher(cfg: Config) -> None:
    """Set the model wrapper of several processes, and start their group where mmengine cannot.

    That is with ``--launcher pytorch`` on CPUs and with restarts of torchrun: after one, torchrun's store still has the
    addresses of the ended processes, and the new ones would wait for those without end.

    Raises:
        UsageError: The process was not started by torchrun.
    """
    if cfg.launcher == 'none':
        return
    if 'strategy' not in cfg:  # FlexibleRunner's, which wraps the model
        cfg.model_wrapper_cfg = model_wrapper(cfg)
    if cfg.launcher != 'pytorch':
        return
    if 'RANK' not in os.environ:
        raise UsageError('--launcher pytorch is for processes started by torchrun: use tools/dist_train.sh CONFIG GPUS')
    device, restarts = get_device(), os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0')
    options: dict
    if device == 'cpu':
        options = dict(backend='gloo')
    elif device == 'cuda' and restarts != '0':
        options = dict(cfg.get('env_cfg', {}).get('dist_cfg', dict(backend='nccl')))  # what mmengine would take
        if options.get('timeout') is not None:
            options['timeout'] = timedelta(seconds=options['timeout'])
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    else:
        return
    store, rank, world_size = next(torch.distributed.rendezvous('env://'))
    store = torch.distributed.PrefixStore(_meet(store, rank, world_size), store)
    torch.distributed.init_process_group(store=store, rank=rank, world_size=world_size, **options)


def model_wrapper(cfg: Config) -> dict:
    """Return the ``model_wrapper_cfg`` of a config, or of one that has none: SARDistributedDataParallel.

    ``broadcast_buffers`` is mmengine's default without a ``model_wrapper_cfg``. On a CPU, mmengine would set
    ``device_ids`` of a wrapper derived from PyTorch's DistributedDataParallel to a GPU unless they are given.
    """
    own = cfg.get('model_wrapper_cfg')
    if own is None:
        unused = cfg.get('find_unused_parameters', False)
        wrapper = dict(type='SARDistributedDataParallel', find_unused_parameters=unused, broadcast_buffers=False)
    else:
        wrapper = dict(own)
    if get_device() != 'cpu':
        return wrapper
    kind = wrapper.setdefault('type', 'MMDistributedDataParallel')
    kind = MODEL_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, type) and issubclass(kind, DistributedDataParallel):
        wrapper.setdefault('device_ids', None)
    if kind in (MMDistributedDataParallel, SARDistributedDataParallel):  # a user's own need not take it
        wrapper.setdefault('broadcast_buffers', False)
    return wrapper


def _meet(store: Any, rank: int, world_size: int) -> str:
    """Return a name that all processes of this start share, and that no earlier start had.

    torchrun's count of restarts cannot be the name: each node counts only the failures of its own processes.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f'waiting/{rank}', own)
        name = store.get(f'name_for/{own}').decode()
        store.set(f'{name}/has/{rank}', '')
        return name
    missing, end = set(range(1, world_size)), time.monotonic() + store.timeout.total_seconds()
    while missing:
        for other in sorted(missing):
            if store.check([f'{own}/has/{other}']):
                missing.discard(other)
            elif store.check([f'waiting/{other}']):  # of this start, or of an earlier one
                store.set(f'name_for/{store.get(f"waiting/{other}").decode()}', own)
        if time.monotonic() > end:
            raise TimeoutError(f'processes {sorted(missing)} have not come within {store.timeout}')
        time.sleep(0.01)
    return own


def leave_process_group() -> None:
    """Destroy the process group, which may abort the process at its exit if left open.

    gloo's threads may do so even then, after a finished run: with gloo, the process ends here.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    is_gloo = torch.distributed.get_backend() == 'gloo'
    if is_gloo:
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    if is_gloo:
        atexit._run_exitfuncs()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
