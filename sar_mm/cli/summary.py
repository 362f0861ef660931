"""The end of a training: what came out, and what to run next."""

import argparse
import os
import os.path as osp
import shlex
import sys
import time
from datetime import timedelta
from typing import List, Optional, Sequence, Tuple

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner, find_latest_checkpoint

from ..engine.checks import unwrapped
from ..engine.hooks.anchor_monitor import anchor_heads
from .model_types import has_anchors
from .stock import stock_of

MOST_SCORES = 3


class Summary(Hook):
    """Logs, when a training has ended or was stopped, its scores and files and the commands to go on with.

    It registers itself as a hook, which is told where a resumed run begins.

    Args:
        runner: The runner, before it trains.
        args: The arguments of tools/train.py.
    """

    def __init__(self, runner: Runner, args: argparse.Namespace) -> None:
        self.runner, self.args = runner, args
        self.start, self.began_at = time.monotonic(), int(time.time())
        # Of a ResumableRunner, the checkpoint that was chosen.
        self.is_resumed = bool(getattr(runner, '_resume', False))
        self.resumed_from = getattr(runner, '_load_from', None) if self.is_resumed else None
        self.resumed_at = 0
        runner.register_hook(self)

    def before_train(self, runner: Runner) -> None:
        self.resumed_at = _progress(runner.train_loop)[0]

    def show(self, failed: bool = False) -> None:
        """Log it, on the main process.

        Args:
            failed: Whether the training was stopped or ended with an error.
        """
        if not is_main_process():
            return
        loop = self.runner._train_loop  # the property would build one
        took = str(timedelta(seconds=round(time.monotonic() - self.start)))
        is_whole = not failed
        if isinstance(loop, BaseLoop):
            done, total, unit = _progress(loop)
            is_whole = not failed and (done >= total or getattr(loop, 'stop_training', False))
            since = f' since it was resumed at {unit[:-1]} {self.resumed_at}' if self.resumed_at else ''
            took = f'{done} of {total} {unit}, {took}{since}'
        checkpoint = self.checkpoint()
        title = 'The training has ended' if is_whole else 'The training was stopped'
        early = '' if is_whole or checkpoint else ', before its first checkpoint'
        rows = [*self.scores(), *self.shut_gates(is_whole)]
        log = osp.join(self.runner.log_dir, f'{self.runner.timestamp}.log')
        if osp.isfile(log):
            rows.append(('log', near(log)))
        if checkpoint is not None:
            rows += self.commands(checkpoint, is_whole)
        lines = [f'{title}: {took}{early}', *(f'  {name:<9}{text}' for name, text in rows)]
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

    def shut_gates(self, is_whole: bool) -> List[Tuple[str, str]]:
        """Return a row where the gates of anchors were open in no step, those before a resume included."""
        # Not the heads' buffers, which cannot be read after an error of a GPU.
        gates = {name: each for name, each in self.runner.message_hub.log_scalars.items() if _is_gate(name)}
        shut = [name.split('/')[-1].rpartition('.')[0] for name, each in gates.items() if not each.data[0].any()]
        if not shut:
            return []
        heads = anchor_heads(unwrapped(self.runner.model)).values()
        if heads and not any(getattr(head.loss_module, 'pull_weight', 1) for head in heads):
            return []  # none is pulled whatever the gate is
        whose = f' in {", ".join(shut)}' if any(shut) else ''
        text = (
            f'{"never" if is_whole else "not yet"} open{whose}: no feature was pulled to its anchor; '
            'why: "The warning of a shut gate" in docs/reading_the_log.md'
        )
        return [('gate', text)]

    def checkpoint(self) -> Optional[str]:
        """Return the best checkpoint of the run that is there, or else the last one, or that it was resumed from."""
        # The hub names a checkpoint before it is written, the file afterwards; it may be that of an earlier run.
        file, saved = osp.join(self.runner.work_dir, 'last_checkpoint'), None
        if osp.isfile(file) and (self.is_resumed or osp.getmtime(file) >= self.began_at):
            saved = find_latest_checkpoint(self.runner.work_dir)
        paths = [path for _, _, path in self.best()] + [self.runner.message_hub.runtime_info.get('last_ckpt'), saved]
        paths.append(self.resumed_from)
        return next((near(path) for path in paths if path and ('://' in path or osp.exists(path))), None)

    def commands(self, checkpoint: str, is_whole: bool) -> List[Tuple[str, str]]:
        """Return the commands that apply, by what they do."""
        args = self.args
        where = ['--work-dir', args.work_dir] if args.work_dir else []
        given = _options(args.cfg_options)
        flags = [f'--{name.replace("_", "-")}' for name in ('amp', 'no_validate', 'auto_scale_lr') if vars(args)[name]]
        rows = [('test', self.command('test', [args.config, checkpoint], [*where, *given]))]
        if not is_whole:
            is_there = osp.isfile(osp.join(self.runner.work_dir, 'last_checkpoint'))
            resume = ['--resume'] if is_there else ['--resume', checkpoint]  # of the folder, or of another run
            rows.append(('resume', self.command('train', [args.config], [*flags, *where, *given, *resume])))
        elif has_anchors(self.runner.cfg):
            rows += self.comparison(checkpoint, flags)
        return rows

    def comparison(self, checkpoint: str, flags: Sequence[str]) -> List[Tuple[str, str]]:
        """Return how to train the stock model, and the command to compare with it."""
        config = self.args.config
        stock = stock_of(self.runner.cfg, config, self.args.cfg_options or [])
        how = 'train the same config without anchors: head types without SAR, no anchor_head, no hook for anchors'
        if stock.config is not None:
            is_apart = stock.config != config and not self.args.work_dir  # a folder of its own has its config's name
            where = [] if is_apart else ['--work-dir', f'{near(self.runner.work_dir)}_stock']
            how = self.command('train', [stock.config], [*flags, *where, *_options(stock.shared + stock.options)])
        tool = osp.join(osp.dirname(sys.argv[0]), 'analysis_tools', 'compare_features.py')
        pair = [stock.config or 'STOCK_CONFIG', 'STOCK_CHECKPOINT', config, checkpoint, *_options(stock.shared)]
        return [('stock', how), ('compare', shlex.join(['python', tool, *pair]))]

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


def _progress(loop: BaseLoop) -> Tuple[int, int, str]:
    """Return what a training loop has done, how much it is to do, and in what."""
    if isinstance(loop, EpochBasedTrainLoop):
        return loop.epoch, loop.max_epochs, 'epochs'
    return loop.iter, loop.max_iters, 'iterations'


def _options(given: Optional[Sequence[str]]) -> List[str]:
    return ['--cfg-options', *given] if given else []


def _is_gate(name: str) -> bool:
    return name.startswith('train/') and name.endswith('anchor_gate')


def near(path: str) -> str:
    """Return a path from the current folder where it lies below it."""
    shorter = path if '://' in path else osp.relpath(path)
    return path if shorter.startswith('..') else shorter
