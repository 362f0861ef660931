"""A row of the matrix, run as users run it: trained, validated, resumed, converted, and its weights loaded."""

import importlib.util
import itertools
import math
import sys
import warnings
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from settings import Setting, stock
from tiny import AnchorSteps, unwrapped
from torch import Tensor, nn

from sar_mm.cli.checkpoints import check_checkpoint
from sar_mm.cli.config import build_runner
from sar_mm.engine.checks import check_run
from sar_mm.engine.runner import ResumableRunner
from sar_mm.engine.safe_checkpoints import safe_loading

ROOT = Path(__file__).parents[2]
WRAPPER = dict(type='SARDistributedDataParallel', device_ids=None, broadcast_buffers=False)
_numbers = itertools.count()


class Run:
    """A training, made as tools/train.py makes it.

    Args:
        setting: What to train.
        name: Of its folder.
        resume: A checkpoint to go on from.
        load_from: A checkpoint whose weights to start from.
        steps: Iterations, in place of the setting's epochs or iterations.
    """

    def __init__(
        self,
        setting: Setting,
        name: str,
        resume: Optional[Path] = None,
        load_from: Optional[Path] = None,
        steps: Optional[int] = None,
    ) -> None:
        cfg = setting.config()
        cfg.work_dir = str(setting.folder / name)
        cfg.experiment_name = f'{setting.folder.name}-{name}-{next(_numbers)}'
        cfg.resume, cfg.load_from = resume is not None, str(resume or load_from or '') or None
        if steps is not None and not cfg.train_cfg.by_epoch:
            cfg.train_cfg.max_iters = steps
        elif steps is not None:
            cfg.train_cfg.max_epochs = 1
        if torch.distributed.is_initialized():
            cfg.update(launcher='pytorch', model_wrapper_cfg=WRAPPER)
        self.runner = build_runner(cfg)
        assert type(self.runner) is ResumableRunner
        if resume is not None:
            check_checkpoint(self.runner, self.runner.choose_checkpoint(), 'the config', to_resume=True)
        with safe_loading():
            check_run(self.runner)
            self.runner.train()
        (self.record,) = (hook for hook in self.runner.hooks if isinstance(hook, AnchorSteps))
        self.model = unwrapped(self.runner.model)

    def checkpoint(self, index: int) -> Path:
        """Return the last checkpoint, -1, or one before it."""
        names = Path(self.runner.work_dir).glob('*_*.pth')
        return sorted(names, key=lambda path: int(path.stem.split('_')[1]))[index]


def check_row(row: Dict[str, str], folder: Path) -> List[Tuple[str, Tensor]]:
    """Check a row, and return weights that are alike in all processes.

    Raises:
        AssertionError: Something went otherwise than it should.
    """
    folder.mkdir(exist_ok=True)
    setting = Setting(row, folder)
    whole = Run(setting, 'whole')
    assert whole.record.validated, 'nothing was validated'
    check_steps(setting, whole.record.steps)
    check_monitor(setting, whole.runner)
    resumed = Run(setting, 'resumed', resume=whole.checkpoint(-2))
    check_steps(setting, resumed.record.steps)
    check_resumed(whole, resumed)
    converted = check_stock(setting, whole)
    check_loaded(row, folder, whole, converted)
    return [(name, value.detach()) for name, value in whole.model.named_parameters()] + [
        (name, value) for name, value in whole.model.named_buffers() if 'anchor' in name and 'running' not in name
    ]


def check_monitor(setting: Setting, runner: ResumableRunner) -> None:
    """Check that AnchorMonitorHook logs the task losses, and the mean of each gate."""
    if setting.row['hook'] != 'monitor':
        return
    last = {name: buffer.current() for name, buffer in runner.message_hub.log_scalars.items() if 'train/' in name}
    gates = {name[len('train/') :] for name in last if name.endswith('anchor_gate')}
    averaged = {each['data_src'] for each in runner.log_processor.custom_cfg}
    if setting.has_baseline:
        assert not averaged and 'train/task' not in last
        return
    assert gates and averaged == {'task', *gates}
    added = sum(value for name, value in last.items() if name.endswith(('loss_anchor', 'loss_pull', 'loss_separation')))
    # mmseg logs the sum of all losses as `loss`, mmpretrain that of its head.
    rest = -added if setting.is_segmentation else last.get('train/loss_unsup', 0)
    assert math.isclose(last['train/task'], last['train/loss'] + rest, rel_tol=1e-4, abs_tol=1e-5)


def check_steps(setting: Setting, steps: List[dict]) -> None:
    """Check that S starts at A, class by class, moves once per step or stays, and is 0 before."""
    if setting.has_baseline:
        return
    assert steps and all(step for step in steps), 'no anchor head was seen'
    for step in steps:
        for name, record in step.items():
            (average, started), (after, is_started) = record['before'], record['after']
            assert len(record['embedded']) == 1, f'{name} embedded its anchors {len(record["embedded"])} times'
            (embedded,) = record['embedded']
            assert set(is_started.tolist()) <= {0.0, 1.0}
            assert (is_started >= (started > 0)).all(), f'{name}: classes stopped'
            current = average / started.where(started > 0, torch.ones_like(started))[:, None]
            moved = torch.lerp(embedded, current, record['momentum'])
            for k in range(len(after)):
                if not is_started[k]:
                    assert not after[k].any(), f'{name}: S of class {k} is not 0 before it starts'
                elif not started[k]:
                    assert torch.equal(after[k], embedded[k]), f'{name}: S of class {k} did not start at A'
                else:
                    is_kept = torch.allclose(after[k], current[k])
                    assert is_kept or torch.allclose(after[k], moved[k]), f'{name}: S of class {k} jumped'
    assert any(record['after'][1].any() for record in steps[0].values()), 'no gate was open'


def check_resumed(whole: Run, resumed: Run) -> None:
    """Check that a resumed run is in the end what the whole one is, bit for bit."""
    paths = [run.checkpoint(-1) for run in (whole, resumed)]
    one, other = (torch.load(path, map_location='cpu', weights_only=False) for path in paths)
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        places = differences(one.get(part), other.get(part), part)
        assert not places, f'{len(places)} values differ after a resume: {places[:3]}'
    for iteration, metrics in resumed.record.validated.items():
        places = differences(whole.record.validated[iteration], metrics, f'metrics of iteration {iteration}')
        assert not places, f'a resumed run validates otherwise: {places[:3]}'


def differences(one, other, place: str) -> List[str]:
    """Return where two nested values differ in as much as a bit."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for name in one for found in differences(one[name], other[name], f'{place}/{name}')]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return [found for k, pair in enumerate(zip(one, other)) for found in differences(*pair, f'{place}/{k}')]
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return [] if torch.equal(one.nan_to_num(7.7), other.nan_to_num(7.7)) else [place]
    return [] if one is other or one == other or (one != one and other != other) else [place]


def check_stock(setting: Setting, whole: Run) -> Path:
    """Check that each part predicts the same, bit for bit, in the stock model; return the last part's checkpoint."""
    weights = torch.load(whole.checkpoint(-1), map_location='cpu', weights_only=False)['state_dict']
    own = build(setting, setting.model())
    own.load_state_dict(weights)
    batches = list(whole.runner.val_dataloader)
    plain = setting.segmentor() if setting.is_segmentation else setting.classifier()
    parts = [None]
    if setting.is_semi:
        parts = ['student', 'teacher'] if own.teacher is not None else ['student']
    for part in parts:
        path = setting.files / f'stock-{part}.pth'
        converted = to_stock()(dict(weights), part, keep_anchors=False)
        torch.save(dict(state_dict=converted), path)
        other = build(setting, stock(plain))
        other.load_state_dict(converted)
        # PyTorch's attention adds up in another order where weights are not trained, as a teacher's are not.
        other.requires_grad_(part != 'teacher')
        if part is not None:
            own.predict_on = part
        for batch in batches:
            assert not differences(predict(own, batch), predict(other, batch), 'predictions'), part
    return path


def build(setting: Setting, config: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope(setting.toolbox):
        return MODELS.build(ConfigDict(config)).eval()


def predict(model: nn.Module, batch: dict) -> List[Tensor]:
    with torch.no_grad():
        samples = model.val_step(batch)
    return [sample.seg_logits.data if 'seg_logits' in sample else sample.pred_score for sample in samples]


def to_stock():
    path = ROOT / 'tools' / 'model_converters' / 'to_stock.py'
    sys.path.append(str(path.parent))  # as of a script, for what the converters share
    spec = importlib.util.spec_from_file_location('to_stock', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.to_stock


def check_loaded(row: Dict[str, str], folder: Path, whole: Run, converted: Path) -> None:
    """Check that weights of a run start another one: where S does not fit, it starts anew, else it goes on."""
    change = row['weights']
    setting = Setting(row, folder, change)
    path = converted if change == 'stock' else whole.checkpoint(-1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        run = Run(setting, 'loaded', load_from=path, steps=1)
    warned = any('predefined anchors' in str(warning.message) for warning in caught)
    assert warned or change != 'anchors' or setting.has_baseline, 'other predefined anchors without a word'
    assert not warned or change not in ('same', 'gate', 'stock'), [str(warning.message) for warning in caught]
    check_steps(setting, run.record.steps)
    weights = torch.load(path, map_location='cpu', weights_only=False)['state_dict']
    for name, record in run.record.steps[0].items():
        average, started = record['before']
        if change in ('same', 'gate'):
            assert torch.equal(average, weights[f'{name}.semantic_anchors']), f'{name}: S was not loaded'
            assert torch.equal(started > 0, weights[f'{name}.initialized'] > 0), f'{name}: what started was not loaded'
        else:
            assert not started.any(), f'{name}: S counts as started, but was not loaded'
