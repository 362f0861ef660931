"""Train a model of MMSegmentation or MMPretrain, with or without semantic anchors.

    python tools/train.py configs/quickstart/sar_resnet18_1xb64-300iter_digits-lt.py
    python tools/train.py my_config.py --work-dir work_dirs/mine --cfg-options randomness.seed=1
    python tools/train.py my_config.py --resume                 # go on from the last checkpoint
    tools/dist_train.sh my_config.py 8 --amp                    # on 8 GPUs

Checkpoints and logs are written into the work folder, by default work_dirs/<config name>. At its end, also after Ctrl-C
or an error, the training says which commands test, resume or compare it.
"""

import argparse

from run_arguments import add_common_arguments


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or without a path from the latest one in the work folder',
    )
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument('--no-validate', action='store_true', help='do not validate during the training')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate by the batch size over the config's own"
    )
    add_common_arguments(parser)
    return parser.parse_args()


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import find_latest_checkpoint

import sar_mm  # noqa: F401  registers the SAR modules, so that configs need no custom_imports here
from sar_mm.checks import UsageError
from sar_mm.cli.checkpoints import check_checkpoint, check_checkpoint_path
from sar_mm.cli.config import build_runner, load_config
from sar_mm.cli.errors import report_errors
from sar_mm.cli.launchers import leave_process_group, prepare_launcher
from sar_mm.cli.loaders import leave_out_validation, set_loader_defaults
from sar_mm.cli.model_types import watch_anchors
from sar_mm.cli.summary import Summary
from sar_mm.engine.checks import check_run
from sar_mm.engine.runner import ResumableRunner
from sar_mm.engine.safe_checkpoints import safe_loading


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    if args.no_validate:
        leave_out_validation(cfg)
    set_loader_defaults(cfg)
    watch_anchors(cfg)
    if args.amp:
        if get_device() == 'cpu':
            raise UsageError("--amp needs an accelerator: mmengine's AmpOptimWrapper does not run on CPUs")
        if cfg.optim_wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise UsageError(f"--amp replaces OptimWrapper, but the config's is {cfg.optim_wrapper.type}")
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UsageError(
                f'--auto-scale-lr needs the batch size that the learning rate of {args.config} is meant for: '
                'set auto_scale_lr=dict(base_batch_size=...) in it'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume == 'auto':
        if 'runner_type' in cfg:  # mmengine's runners resume load_from where there is one
            cfg.resume, cfg.load_from = True, None
        else:
            cfg.resume = 'auto'
    elif args.resume is not None:
        cfg.resume, cfg.load_from = True, args.resume


def main(args: argparse.Namespace) -> None:
    with report_errors():
        if args.resume not in (None, 'auto'):
            check_checkpoint_path(args.resume)
        cfg = load_config(args)
    with report_errors(cfg):
        merge_args(cfg, args)
        prepare_launcher(cfg)
        runner = build_runner(cfg)
        if isinstance(runner, ResumableRunner):
            checkpoint = runner.choose_checkpoint()
        elif args.resume is not None:
            checkpoint = cfg.load_from or find_latest_checkpoint(runner.work_dir)
        else:
            checkpoint = None
        if checkpoint is not None:
            check_checkpoint(runner, checkpoint, args.config, to_resume=True)
        with safe_loading():
            check_run(runner)
            summary = Summary(runner, args)
            try:
                runner.train()
            except BaseException:  # an error, or Ctrl-C
                summary.show(failed=True)
                raise
            summary.show()
    leave_process_group()


if __name__ == '__main__':
    main(ARGS)
