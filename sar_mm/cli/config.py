"""What the tools do with a config: read it, merge the command line into it, and build its runner."""

import argparse
import difflib
import inspect
import os
import os.path as osp
import sys
from typing import Iterable, Sequence, Union

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checks import UsageError, did_you_mean
from ..engine.runner import ResumableRunner, without_monitor
from ..engine.saving import check_folder
from ..toolboxes import allow_bases
from .model_types import check_model_types

_RUNNER_KEYS = [name for name in inspect.signature(Runner.__init__).parameters if name not in ('self', 'cfg')]
# What runners and tools read besides the arguments of mmengine's Runner.
_OTHER_KEYS = (
    *('activation_checkpointing', 'check_classes', 'check_weights', 'compile', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline'),
)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge the common arguments into it.

    Args:
        args: ``config``, ``work_dir``, ``launcher``, ``local_rank``, and ``cfg_options``: None, a list of ``KEY=VALUE``
            as on the command line, or a dict.

    Raises:
        UsageError: There is no such file, it is not Python, or ``--cfg-options`` do not fit it.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    allow_bases()
    if not osp.isfile(args.config):
        raise UsageError(f'there is no config {args.config}')
    try:
        cfg = Config.fromfile(args.config)
    except SyntaxError as error:  # whose traceback names no file
        raise UsageError(f'config {args.config} cannot be read: syntax error in it or a `_base_`: {error}') from error
    options = read_options(args.cfg_options)
    warn_of_unread_keys(cfg, options)
    try:
        cfg.merge_from_dict(options)
    except (IndexError, KeyError, TypeError) as error:
        reason = error.args[0] if error.args else error
        raise UsageError(f'--cfg-options {" ".join(options)}: they do not fit the config: {reason}') from error
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    return cfg


def read_options(given: Union[None, dict, Sequence[str]]) -> dict:
    """Return ``--cfg-options`` as mmengine's DictAction reads them, or the dict that is given.

    Raises:
        UsageError: One is not of the form ``KEY=VALUE``.
    """
    if not given:
        return {}
    if isinstance(given, dict):
        return given
    for option in given:
        if '=' not in option:
            raise UsageError(f'--cfg-options {option}: expected KEY=VALUE, without spaces around =')
    read = argparse.Namespace()
    DictAction(['--cfg-options'], 'options')(argparse.ArgumentParser(), read, given)
    return read.options


def warn_of_unread_keys(cfg: Config, given: Iterable[str]) -> None:
    """Warn of keys at the top of a config that look like misspelt ones, and of options that change nothing.

    Args:
        cfg: The config, without what is given on the command line.
        given: Dotted keys of that.
    """
    for key in cfg:
        near = difflib.get_close_matches(key, ['_base_', 'custom_imports', *_RUNNER_KEYS], n=1, cutoff=0.85)
        if near and key not in (*_RUNNER_KEYS, *_OTHER_KEYS) and near[0] not in cfg:
            print(f'warning: nothing reads {key} in the config; did you mean {near[0]}?', file=sys.stderr)
    known = [*cfg, *_RUNNER_KEYS, *_OTHER_KEYS]
    for top in {key.split('.')[0] for key in given}.difference(known):
        hint = did_you_mean(top, known)
        print(f'warning: --cfg-options {top}: neither the config nor a runner has this key{hint}', file=sys.stderr)


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for, or a ResumableRunner.

    Raises:
        CheckpointError: The work folder cannot be written to.
        UsageError: The config has no model, or a part of it is of an unknown type.
    """
    check_folder('work_dir', cfg.work_dir)
    if 'model' not in cfg:
        raise UsageError('the config has no `model`: add one, or a `_base_` (spelt like this) that has one')
    check_model_types(cfg)
    if 'runner_type' not in cfg:
        return ResumableRunner.from_cfg(cfg)
    if cfg.get('default_hooks') is not None:
        cfg.default_hooks = without_monitor(cfg.default_hooks)
    return RUNNERS.build(cfg)
