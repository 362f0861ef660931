"""Test a checkpoint of a model of MMSegmentation or MMPretrain, trained with or without semantic anchors.

    python tools/test.py my_config.py work_dirs/my_config/iter_80000.pth
    python tools/test.py my_config.py CHECKPOINT --show-dir pictures       # and draw every prediction
    python tools/test.py my_config.py CHECKPOINT --out predictions.pkl     # and keep them; a folder for mmseg
    tools/dist_test.sh my_config.py CHECKPOINT 8                           # on 8 GPUs

Log and scores are written into the work folder, by default work_dirs/<config name>.
"""

import argparse
from copy import deepcopy
from typing import Optional

from run_arguments import add_common_arguments


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument(
        '--out', help='where to write the predictions: a folder of label maps for mmseg, a .pkl file for mmpretrain'
    )
    parser.add_argument('--show-dir', help='folder to write a picture of every prediction to')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_common_arguments(parser)
    return parser.parse_args()


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

import sar_mm  # noqa: F401  registers the SAR modules, so that configs need no custom_imports here
from sar_mm.checks import UsageError
from sar_mm.cli.checkpoints import check_checkpoint, check_checkpoint_path
from sar_mm.cli.config import build_runner, load_config
from sar_mm.cli.errors import report_errors
from sar_mm.cli.launchers import leave_process_group, prepare_launcher
from sar_mm.cli.loaders import set_loader_defaults
from sar_mm.cli.pictures import PredictionPictures
from sar_mm.engine.checks import check_test
from sar_mm.engine.safe_checkpoints import safe_loading

# What mmpretrain's VisualizationHook passes on to its visualizer.
DRAWING = ('classes', 'draw_gt', 'draw_pred', 'draw_score', 'resize', 'rescale_factor', 'text_cfg')


def draw_predictions(runner: Runner, cfg: Config, show_dir: str) -> None:
    options = {}
    if cfg.get('default_scope') != 'mmseg':  # mmpretrain's hook takes how to draw beside when
        hook = cfg.get('default_hooks', {}).get('visualization') or {}
        options = {name: value for name, value in hook.items() if name in DRAWING}
    runner.register_hook(PredictionPictures(show_dir, **options))


def augment_at_test_time(cfg: Config, show_dir: Optional[str]) -> None:
    dataset = cfg.test_dataloader.dataset
    if cfg.get('default_scope') == 'mmseg':
        if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
            raise UsageError('--tta needs tta_model and tta_pipeline in the config')
    elif show_dir:
        raise UsageError('--tta and --show-dir do not go together for mmpretrain: an augmented image has several views')
    else:  # as in mmpretrain: where the config does not say, the mean over the image and its mirror image
        cfg.setdefault('tta_model', dict(type='mmpretrain.AverageClsScoreTTA'))
        if 'tta_pipeline' not in cfg:
            flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
            cfg.tta_pipeline = deepcopy(dataset.pipeline)
            cfg.tta_pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [dataset.pipeline[-1]]])
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)


def save_predictions(runner: Runner, cfg: Config, out: str) -> None:
    if cfg.get('default_scope') != 'mmseg':
        if not out.endswith(('.pkl', '.pickle')):
            raise UsageError(f'Expected argument `--out` to be a .pkl file for mmpretrain, but got {out!r}')
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=out))


def main(args: argparse.Namespace) -> None:
    with report_errors():
        check_checkpoint_path(args.checkpoint)
        cfg = load_config(args)
    with report_errors(cfg):
        cfg.load_from = args.checkpoint
        set_loader_defaults(cfg)
        if args.tta:
            augment_at_test_time(cfg, args.show_dir)
        if args.out and cfg.get('default_scope') == 'mmseg':
            if not isinstance(cfg.test_evaluator, dict):
                raise UsageError('--out needs a single test_evaluator in the config')
            cfg.test_evaluator.output_dir = args.out
        prepare_launcher(cfg)
        runner = build_runner(cfg)
        if args.out:
            save_predictions(runner, cfg, args.out)
        if args.show_dir:
            draw_predictions(runner, cfg, args.show_dir)
        check_checkpoint(runner, args.checkpoint, args.config, to_resume=False)
        check_test(runner, args.checkpoint)
        with safe_loading():
            runner.test()
    leave_process_group()


if __name__ == '__main__':
    main(ARGS)
