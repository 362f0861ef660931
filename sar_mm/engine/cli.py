"""What tools/train.py and tools/test.py share: configs, launchers, and clear messages for typing errors."""

import argparse
import atexit
import copy
import logging
import os
import os.path as osp
import re
import sys
import time
import uuid
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Iterator, List, Optional, Tuple

import torch.distributed
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.model import BaseTTAModel, MMDistributedDataParallel, is_model_wrapper
from mmengine.registry import MODEL_WRAPPERS, RUNNERS
from mmengine.runner import Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..toolboxes import allow_bases
from .checks import check_resumed_anchors
from .errors import UsageError, describe, is_before_training
from .keys import check_keys
from .runner import ResumableRunner
from .safe_checkpoints import CheckpointError, read_checkpoint
from .saving import check_folder

_STUDENT, _TEACHER = 'student.', 'teacher.module.'
# What a model has for its training alone, by the names that mmseg and mmpretrain give to such modules.
_UNUSED = re.compile(r'(^|\.)(anchor_head|auxiliary_head|loss(_\w+)?)\.')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of both tools, which are those of the OpenMMLab toolboxes."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default work_dirs/<config name>')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, as in model.decode_head.anchor_head.momentum=0.99; lists as key="[a,b]"',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # Launchers of different age spell it differently.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge the common arguments into it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    allow_bases()
    if not osp.isfile(args.config):
        raise UsageError(f'there is no config {args.config}')
    try:
        cfg = Config.fromfile(args.config)
        check_keys(cfg, args.cfg_options or {})
    except UsageError:
        raise
    except Exception as error:  # a config is code: anything can be raised
        raise UsageError(f'config {args.config} cannot be read: {describe(error)}') from error
    if args.cfg_options is not None:
        _merge_options(cfg, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    return cfg


def _merge_options(cfg: Config, options: dict) -> None:
    """Merge options of the command line; a UsageError says which of them does not fit the config."""
    try:
        cfg.merge_from_dict(options)
    except (IndexError, KeyError, TypeError) as error:
        reason = error.args[0] if error.args else error
        option = next((f'{key}={value!r}' for key, value in options.items() if not _fits(cfg, key, value)), options)
        raise UsageError(f'--cfg-options {option} does not fit the config: {reason}') from error


def _fits(cfg: Config, key: str, value: Any) -> bool:
    try:
        copy.deepcopy(cfg).merge_from_dict({key: value})
    except (IndexError, KeyError, TypeError):
        return False
    return True


def prepare_launcher(cfg: Config) -> None:
    """Check the launcher's environment, and let ``--launcher pytorch`` work where mmengine alone does not.

    That is on CPUs, and when torchrun starts the processes again: it keeps the addresses of those before, which would
    be waited for without end.
    """
    if cfg.launcher != 'pytorch':
        return
    if 'RANK' not in os.environ:
        raise UsageError('--launcher pytorch is for processes started by torchrun: use tools/dist_train.sh CONFIG GPUS')
    device, restarts = get_device(), os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0')
    if device == 'cpu':
        options = dict(backend='gloo')
        cfg.model_wrapper_cfg = wrapper_on_cpu(cfg)
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


def wrapper_on_cpu(cfg: Config) -> dict:
    """Return the ``model_wrapper_cfg`` of a config, with what is missing for a CPU.

    mmengine gives a wrapper derived from PyTorch's DistributedDataParallel the number of a GPU, unless it has
    ``device_ids``. Buffers stay those of each process, as they do in mmengine without a ``model_wrapper_cfg``.
    """
    own = cfg.get('model_wrapper_cfg')
    wrapper = dict(find_unused_parameters=cfg.get('find_unused_parameters', False)) if own is None else dict(own)
    kind = wrapper.setdefault('type', 'MMDistributedDataParallel')
    kind = MODEL_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, type) and issubclass(kind, DistributedDataParallel):
        wrapper.setdefault('device_ids', None)
    if kind is MMDistributedDataParallel:  # a user's own need not take it
        wrapper.setdefault('broadcast_buffers', False)
    return wrapper


def _meet(store: torch.distributed.Store, rank: int, world_size: int) -> str:
    """Return a name that the processes of this start have in common, and those of no earlier start had.

    torchrun's count of restarts is none: each node counts those that its own processes were the reason for.
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
            elif store.check([f'waiting/{other}']):  # it, or one of an earlier start
                store.set(f'name_for/{store.get(f"waiting/{other}").decode()}', own)
        if time.monotonic() > end:
            raise TimeoutError(f'processes {sorted(missing)} have not come within {store.timeout}')
        time.sleep(0.01)
    return own


def leave_process_group() -> None:
    """Close the connections to the other processes, which may abort this one as it ends when they are left open.

    gloo's threads may abort it all the same, and make a failure of a finished run: such a process ends at once.
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


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for, or a ResumableRunner; what the config gets wrong is a UsageError."""
    check_folder('work_dir', cfg.work_dir)
    if 'model' not in cfg:
        raise UsageError('the config has no `model`: add one, or a `_base_` (spelt so) that has one')
    try:
        return RUNNERS.build(cfg) if 'runner_type' in cfg else ResumableRunner.from_cfg(cfg)
    except (AssertionError, AttributeError, ImportError, KeyError, OSError, TypeError, ValueError) as error:
        raise UsageError(describe(error, cfg)) from error


@contextmanager
def usage_errors(cfg: Optional[Config] = None) -> Iterator[None]:
    """Turn errors of users, of what a run is built of, and of missing files into a message and exit code 2."""
    try:
        yield
    except (CheckpointError, UsageError) as error:
        message = str(error)
    except Exception as error:
        if not isinstance(error, FileNotFoundError) and not is_before_training(error):
            raise
        message = describe(error, cfg)
    else:
        return
    rank = os.environ.get('RANK', '0')  # any process may be the only one with an error
    print(f'\nerror: {message}' if rank == '0' else f'\nerror of rank {rank}: {message}', file=sys.stderr)
    sys.exit(2)


def check_checkpoint_path(path: str) -> None:
    """Raise a UsageError unless there is such a file or folder, or it lies elsewhere (``https://``, ``s3://``, ...)."""
    if '://' not in path and not osp.exists(osp.expanduser(path)):
        raise UsageError(f'there is no checkpoint {path}')


def check_checkpoint(runner: Runner, path: str, config: str, to_resume: bool) -> None:
    """Raise a UsageError unless the checkpoint is one of the runner's model.

    mmengine loads what fits and only warns about the rest: a test would report the accuracy of random weights. A
    FlexibleRunner builds its model later, so its checkpoint is not checked.

    Args:
        runner: The runner; its model takes the weights.
        path: The checkpoint.
        config: Name of the config, for the message.
        to_resume: Training goes on, so every key has to be there. Else the checkpoint may hold more than the model,
            and need not have what predictions do without: anchor heads, auxiliary heads, what losses keep, and of a
            semi-supervised model all but the part that predicts.
    """
    model = runner.model
    if not isinstance(model, nn.Module):
        return
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    # A ResumableRunner has read the one that it resumes.
    weights = getattr(runner, 'checkpoint', None) or read_checkpoint(path)
    weights = weights.get('state_dict', weights)
    weights = {re.sub(r'^module\.', '', name): weight for name, weight in weights.items()}
    if to_resume:
        check_resumed_anchors(model, dict(state_dict=weights))
        complaints = _misfits(model, weights, '', to_resume)
    else:
        complaints = []
        for prefix, part in _predicting_parts(model, runner):
            own = _below(prefix, weights)
            if prefix == _TEACHER:  # as a SemiModel loads it
                own = {**_below(_STUDENT, weights), **own}
            # Neither are they loaded: their shapes do not matter.
            own = {name: weight for name, weight in own.items() if not _UNUSED.search(name)}
            complaints += _misfits(part, own, prefix, to_resume)
    if complaints:
        raise UsageError(f'{path} is not a checkpoint of the model in {config}: {"; ".join(complaints)}')


def _predicting_parts(model: nn.Module, runner: Runner) -> Iterator[Tuple[str, nn.Module]]:
    """Yield what predicts in a test, the prefix of its weights first: of a semi-supervised model, one part or both."""
    if not hasattr(model, 'predict_with'):
        yield '', model
        return
    test_cfg = getattr(runner, 'cfg', {}).get('test_cfg') or {}
    both = 'StudentTeacherValLoop' in str(test_cfg.get('type'))
    if both or model.predict_with == 'student':
        yield _STUDENT, model.student
    if getattr(model, 'teacher', None) is not None and (both or model.predict_with == 'teacher'):
        yield _TEACHER, model.teacher.module


def _below(prefix: str, weights: dict) -> dict:
    return {name[len(prefix) :]: weight for name, weight in weights.items() if name.startswith(prefix)}


def _misfits(model: nn.Module, weights: dict, prefix: str, to_resume: bool) -> List[str]:
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # shapes differ; the lines after the first name each
        return str(error).strip().splitlines()[1:2] or [str(error)]
    complaints = []
    missing = [name for name in missing if to_resume or not _UNUSED.search(name)]
    if missing:
        complaints.append(f'{len(missing)} of its weights are missing in the checkpoint, {prefix}{missing[0]} for one')
    if unexpected and to_resume:
        complaints.append(f'{len(unexpected)} weights of the checkpoint are not in it, {unexpected[0]} for one')
    return complaints
