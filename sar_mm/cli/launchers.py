"""Launchers: what ``--launcher pytorch`` needs besides what mmengine does."""

import atexit
import logging
import os
import sys
import time
import uuid
from datetime import timedelta
from typing import Any, Optional

import torch.distributed
from mmengine._strategy import DDPStrategy
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS, RUNNERS, STRATEGIES, Registry
from mmengine.runner import FlexibleRunner
from torch.nn.parallel import DistributedDataParallel

from ..checks import UsageError
from ..engine.data_parallel import SARDistributedDataParallel
from .model_types import has_anchors

_UNTRIED = ('DeepSpeedStrategy', 'ColossalAIStrategy')


def prepare_launcher(cfg: Config) -> None:
    """Set the model wrapper of several processes, and start their group where mmengine cannot.

    That is with ``--launcher pytorch`` on CPUs and with restarts of torchrun: after one, torchrun's store still has the
    addresses of the ended processes, and the new ones would wait for those without end.

    Raises:
        UsageError: The process was not started by torchrun.
    """
    warn_of_strategy(cfg)
    if cfg.launcher == 'none':
        drop_strategy(cfg)
        return
    set_model_wrapper(cfg)
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


def warn_of_strategy(cfg: Config) -> None:
    """Warn where the strategy of a FlexibleRunner does harm to semantic anchors, or was never tried with them."""
    strategy = cfg.get('strategy')
    if 'runner_type' not in cfg or not isinstance(strategy, dict) or _rank() != '0':
        return
    name = str(getattr(strategy.get('type'), '__name__', strategy.get('type'))).rpartition('.')[2]
    precision = (strategy.get('model_wrapper') or {}).get('mixed_precision')
    dtype = precision.get('buffer_dtype') if isinstance(precision, dict) else None
    warnings = []
    if name in _UNTRIED:
        warnings.append(
            f'were never trained with {name}: DDPStrategy and FSDPStrategy are tested (docs/distributed.md)'
        )
    if dtype in ('half', 'float16', 'bfloat16', torch.float16, torch.bfloat16):
        warnings.append(f'hardly move as {dtype}: leave out strategy.model_wrapper.mixed_precision.buffer_dtype')
    if warnings and has_anchors(cfg):
        print('\n'.join(f'warning: semantic anchors {text}' for text in warnings), file=sys.stderr)


def set_model_wrapper(cfg: Config) -> None:
    """Set the ``model_wrapper_cfg`` of a config, or where its runner is a FlexibleRunner that of a DDPStrategy.

    Other strategies shard the model, or are the user's own, and stay as they are.
    """
    if not has_flexible_runner(cfg):
        cfg.model_wrapper_cfg = model_wrapper(cfg, cfg.get('model_wrapper_cfg'))
        return
    strategy = cfg.get('strategy') or dict(type='DDPStrategy')  # mmengine's default for several processes
    if isinstance(strategy, dict) and _class_of(strategy, STRATEGIES) is DDPStrategy:
        own = strategy.get('model_wrapper') or cfg.get('model_wrapper_cfg')
        cfg.strategy = dict(strategy, model_wrapper=model_wrapper(cfg, own))


def drop_strategy(cfg: Config) -> None:
    """Take out the strategy that :func:`set_model_wrapper` has put into a config, as a work folder has it.

    A single process has none to communicate with, and mmengine would look for its rank.
    """
    wrapper = (cfg.get('strategy') or {}).get('model_wrapper') or {}
    is_ours = _class_of(wrapper, MODEL_WRAPPERS) is SARDistributedDataParallel
    if is_ours and has_flexible_runner(cfg) and _class_of(cfg.strategy, STRATEGIES) is DDPStrategy:
        cfg.pop('strategy')


def has_flexible_runner(cfg: Config) -> bool:
    kind = _class_of(dict(type=cfg.get('runner_type')), RUNNERS)
    return isinstance(kind, type) and issubclass(kind, FlexibleRunner)


def _class_of(part: dict, registry: Registry) -> Any:
    kind = part.get('type')
    return registry.get(kind) if isinstance(kind, str) else kind


def _rank() -> str:
    names = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    return next((os.environ[name] for name in names if name in os.environ), '0')


def model_wrapper(cfg: Config, own: Optional[dict]) -> dict:
    """Return the model wrapper of a config, or of one that has none of its own: SARDistributedDataParallel.

    ``broadcast_buffers`` is mmengine's default without a ``model_wrapper_cfg``. On a CPU, mmengine would set
    ``device_ids`` of a wrapper derived from PyTorch's DistributedDataParallel to a GPU unless they are given.
    """
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
