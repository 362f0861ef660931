"""What tools/train.py and tools/test.py share: configs, launchers, and clear messages for typing errors."""

import argparse
import difflib
import os
import os.path as osp
import re
import sys
import traceback
from contextlib import contextmanager
from typing import Iterator, List, Optional

import mmengine.registry
import torch.distributed
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS, Registry
from mmengine.runner import CheckpointLoader, Runner
from torch import nn


class UsageError(Exception):
    """Something the user typed is wrong; the message is all there is to show."""


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
    if not osp.isfile(args.config):
        raise UsageError(f'there is no config {args.config}')
    try:
        cfg = Config.fromfile(args.config)
        if args.cfg_options is not None:
            cfg.merge_from_dict(args.cfg_options)
    except Exception as error:  # a config is code: anything can be raised
        raise UsageError(f'config {args.config} cannot be read: {_describe(error)}') from error
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    return cfg


def prepare_launcher(cfg: Config) -> None:
    """Check the launcher's environment, and let ``--launcher pytorch`` work on CPUs, which mmengine alone does not."""
    if cfg.launcher != 'pytorch':
        return
    if 'RANK' not in os.environ:
        raise UsageError('--launcher pytorch is for processes started by torchrun: use tools/dist_train.sh CONFIG GPUS')
    if get_device() == 'cpu':
        torch.distributed.init_process_group('gloo')
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def leave_process_group() -> None:
    """Close the connections to the other processes: left open, their threads may abort this one as it ends."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for; what the config gets wrong becomes a UsageError."""
    try:
        return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    except (AssertionError, AttributeError, ImportError, KeyError, OSError, TypeError, ValueError) as error:
        raise UsageError(_describe(error, cfg)) from error


@contextmanager
def usage_errors(cfg: Optional[Config] = None) -> Iterator[None]:
    """Turn a UsageError, and names or files found missing while running, into a message and exit code 2."""
    try:
        yield
    except UsageError as error:
        message = str(error)
    except (FileNotFoundError, KeyError) as error:
        if isinstance(error, KeyError) and not _UNKNOWN_TYPE.search(str(error)):
            raise
        message = _describe(error, cfg)
    else:
        return
    if os.environ.get('RANK', '0') == '0':  # once, not once per process
        print(f'\nerror: {message}', file=sys.stderr)
    sys.exit(2)


def check_checkpoint_path(path: str) -> None:
    """Raise a UsageError unless ``path`` is a file, or lies elsewhere (``https://``, ``s3://``, ...)."""
    if '://' not in path and not osp.isfile(path):
        raise UsageError(f'there is no checkpoint {path}')


def check_checkpoint(runner: Runner, path: str, config: str, to_resume: bool) -> None:
    """Raise a UsageError unless the checkpoint is one of the runner's model.

    mmengine loads what fits and only warns about the rest: a test would report the accuracy of random weights. A
    FlexibleRunner builds its model later, so its checkpoint is not checked.

    Args:
        runner: The runner; its model takes the weights.
        path: The checkpoint.
        config: Name of the config, for the message.
        to_resume: Training goes on, so every key has to be there. Else keys of anchor heads may be missing, and the
            checkpoint may hold more than the model.
    """
    model = runner.model
    if not isinstance(model, nn.Module):
        return
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        weights = checkpoint.get('state_dict', checkpoint)
        weights = {re.sub(r'^module\.', '', name): weight for name, weight in weights.items()}
    except Exception as error:  # unpickling a damaged file can raise anything
        raise UsageError(f'{path} cannot be read as a checkpoint: {_describe(error)}') from error
    complaints = _misfits(model, weights, to_resume)
    if complaints:
        raise UsageError(f'{path} is not a checkpoint of the model in {config}: {"; ".join(complaints)}')


def _misfits(model: nn.Module, weights: dict, to_resume: bool) -> List[str]:
    def counts(name: str) -> bool:
        return to_resume or 'anchor_head.' not in name

    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # shapes differ; the lines after the first name each
        return str(error).strip().splitlines()[1:2] or [str(error)]
    complaints = []
    missing = [name for name in missing if counts(name)]
    if missing:
        complaints.append(f'{len(missing)} of its weights are missing in the checkpoint, {missing[0]} for one')
    if unexpected and to_resume:
        complaints.append(f'{len(unexpected)} weights of the checkpoint are not in it, {unexpected[0]} for one')
    return complaints


_UNKNOWN_TYPE = re.compile(r'(?P<name>[\w.]+) is not in the (?P<registry>\S+) registry')


def _describe(error: BaseException, cfg: Optional[Config] = None) -> str:
    """Say what went wrong, with the nearest valid name where a registered name is misspelt, and where it was raised."""
    unknown = _UNKNOWN_TYPE.search(str(error))
    if unknown and isinstance(error, KeyError):
        name = unknown['name']
        place = _find_type(cfg._cfg_dict, name) if cfg is not None else None
        nearest = difflib.get_close_matches(name.split('.')[-1], _registered_names(), n=3)
        hint = f'did you mean {" or ".join(nearest)}?' if nearest else 'is its package in custom_imports?'
        return f"{place or 'type'}='{name}' is not registered ({unknown['registry']}); {hint}"
    if isinstance(error, OSError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f' (raised at {frames[-1].filename}:{frames[-1].lineno})' if frames else ''
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f'{type(error).__name__}: {text}{where}'


def _find_type(node, name: str, path: str = '') -> Optional[str]:
    """Return the dotted place of the first ``type=name`` in a config."""
    if isinstance(node, (dict, ConfigDict)):
        if node.get('type') == name:
            return f'{path}type'
        children = list(node.items())
    elif isinstance(node, (list, tuple)):
        children = list(enumerate(node))
    else:
        return None
    found = (_find_type(child, name, f'{path}{key}.') for key, child in children)
    return next((place for place in found if place is not None), None)


def _registered_names() -> List[str]:
    roots = [registry for registry in vars(mmengine.registry).values() if isinstance(registry, Registry)]
    registries = roots + [child for root in roots for child in root.children.values()]
    return sorted({name for registry in registries for name in registry.module_dict})
