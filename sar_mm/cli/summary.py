"""The end of a training: what came out, and what to run next."""

import argparse
import os
import os.path as osp
import re
import shlex
import sys
import time
from datetime import timedelta
from typing import List, Optional, Sequence, Tuple

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner, find_latest_checkpoint

from .model_types import has_anchors

MOST_SCORES = 3


class Summary:
    """Logs, when a training has ended or was stopped, its scores and files and the commands to go on with.

    Args:
        runner: The runner, before it trains.
        args: The arguments of tools/train.py.
    """

    def __init__(self, runner: Runner, args: argparse.Namespace) -> None:
        self.runner, self.args = runner, args
        self.start = time.monotonic()

    def show(self, failed: bool = False) -> None:
        """Log it, on the main process, unless no step was trained.

        Args:
            failed: Whether the training was stopped or ended with an error.
        """
        loop = self.runner._train_loop  # the property would build one
        if not is_main_process() or not isinstance(loop, BaseLoop) or loop.iter == 0:
            return
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        done, total, unit = (
            (loop.epoch, loop.max_epochs, 'epochs') if by_epoch else (loop.iter, loop.max_iters, 'iterations')
        )
        is_whole = not failed and (done >= total or getattr(loop, 'stop_training', False))
        took = timedelta(seconds=round(time.monotonic() - self.start))
        rows = [('', f'{done} of {total} {unit}, {took}'), *self.scores()]
        log = osp.join(self.runner.log_dir, f'{self.runner.timestamp}.log')
        rows.append(('log', near(log)))
        rows += self.commands(self.checkpoint(), is_whole)
        title = 'The training has ended' if is_whole else 'The training was stopped'
        lines = [f'{title}: {rows[0][1]}', *(f'  {name:<9}{text}' for name, text in rows[1:])]
        self.runner.logger.info('\n'.join(lines))

    def best(self) -> List[Tuple[str, float, str]]:
        """Return the name, value and checkpoint of each best score that CheckpointHook has kept."""
        infos, found = self.runner.message_hub.runtime_info, []
        hooks = [hook for hook in self.runner.hooks if isinstance(hook, CheckpointHook) and hook.save_best]
        for name in [name for hook in hooks for name in hook.key_indicators or ()]:
            suffix = '' if 'best_score' in infos else f'_{name}'
            if f'best_ckpt{suffix}' in infos:
                found.append((name, infos[f'best_score{suffix}'], infos[f'best_ckpt{suffix}']))
        return found

    def scores(self) -> List[Tuple[str, str]]:
        """Return the best scores with their checkpoints, or else those of the last validation."""
        best = [('best', f'{name} {value:.4g}, {near(path)}') for name, value, path in self.best()]
        logged = self.runner.message_hub.log_scalars
        names = [name for name in logged if name.startswith('val/') and not name.endswith('time')][:MOST_SCORES]
        last = ', '.join(f'{name[len("val/") :]} {logged[name].current():.4g}' for name in names)
        return best or ([('scores', f'{last} (last validation)')] if last else [])

    def checkpoint(self) -> Optional[str]:
        """Return the best checkpoint that is there, or else the last one."""
        work_dir = self.runner.work_dir
        # The hub names a checkpoint before it is written, the file afterwards.
        saved = find_latest_checkpoint(work_dir) if osp.isfile(osp.join(work_dir, 'last_checkpoint')) else None
        paths = [path for _, _, path in self.best()] + [self.runner.message_hub.runtime_info.get('last_ckpt'), saved]
        return next((near(path) for path in paths if path and ('://' in path or osp.exists(path))), None)

    def commands(self, checkpoint: Optional[str], is_whole: bool) -> List[Tuple[str, str]]:
        """Return the commands that apply, by what they do."""
        args, rows = self.args, []
        where = ['--work-dir', args.work_dir] if args.work_dir else []
        given = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
        flags = [f'--{name.replace("_", "-")}' for name in ('amp', 'no_validate', 'auto_scale_lr') if vars(args)[name]]
        if checkpoint is not None:
            rows.append(('test', self.command('test', [args.config, checkpoint], [*where, *given])))
        if not is_whole and checkpoint is not None:
            rows.append(('resume', self.command('train', [args.config], [*flags, *where, *given, '--resume'])))
        elif not is_whole:
            rows.append(('resume', 'nothing to resume: no checkpoint was saved yet'))
        stock = self.stock(flags) if is_whole and checkpoint is not None else None
        if stock is not None:
            config, command, shared = stock
            tool = osp.join(osp.dirname(sys.argv[0]), 'analysis_tools', 'compare_features.py')
            pair = [config, 'STOCK_CHECKPOINT', args.config, checkpoint, *shared]
            rows += [('stock', command), ('compare', shlex.join(['python', tool, *pair]))]
        return rows

    def stock(self, flags: Sequence[str]) -> Optional[Tuple[str, str, List[str]]]:
        """Return the config of the stock model, the command to train it, and options of both; None where unknown."""
        given = self.args.cfg_options or []
        named = [option for option in given if re.search(r'head.*type=SAR', option)]
        rest = [option for option in given if option not in named and 'anchor_head' not in option]
        folder, name = osp.split(self.args.config)
        twin = osp.join(folder, name[len('sar_') :])
        has_twin = name.startswith('sar_') and osp.isfile(twin)
        if not has_anchors(self.runner.cfg) or not (has_twin or named):
            return None
        config = twin if has_twin else self.args.config
        is_apart = has_twin and not self.args.work_dir  # its default folder has the name of its config
        where = [] if is_apart else ['--work-dir', f'{near(self.runner.work_dir)}_stock']
        options = ['--cfg-options', *rest] if rest else []
        return config, self.command('train', [config], [*flags, *where, *options]), options

    def command(self, tool: str, files: Sequence[str], options: Sequence[str]) -> str:
        """Return the command line of tools/train.py or tools/test.py, as the launcher of this run has it."""
        folder, processes = osp.dirname(sys.argv[0]), str(get_world_size())
        if self.args.launcher == 'pytorch':
            processes = os.environ.get('LOCAL_WORLD_SIZE', processes)  # of a node; the other nodes are started alike
            return shlex.join([osp.join(folder, f'dist_{tool}.sh'), *files, processes, *options])
        if self.args.launcher == 'slurm':
            script = osp.join(folder, f'slurm_{tool}.sh')
            return f'GPUS={processes} ' + shlex.join([script, 'PARTITION', 'JOB', *files, *options])
        return shlex.join(['python', osp.join(folder, f'{tool}.py'), *files, *options])


def near(path: str) -> str:
    """Return a path from the current folder where it lies below it."""
    shorter = path if '://' in path else osp.relpath(path)
    return path if shorter.startswith('..') else shorter
