import math
from typing import Any, Dict, List, Optional, Sequence

from mmengine.dist import is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import VISBACKENDS
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend
from torch import nn

from ...checks import are_weights, check, check_flag
from ...names import ANCHOR_LOSSES
from ...registry import HOOKS
from ..checks import unwrapped
from ..gate_advice import explain_gate, shut_classes

# Not LocalVisBackend, whose file of scalars has the lines of the log.
BACKENDS = ('Tensorboard', 'Wandb', 'MLflow', 'ClearML', 'Neptune', 'DVCLive', 'Aim')  # ...VisBackend of mmengine
FEWEST_STEPS = 10  # before a gate is called shut


@HOOKS.register_module()
class AnchorMonitorHook(Hook):
    """Completes the log of a training with semantic anchors, and says why a gate stays shut.

    - ``task`` in the log is the sum of all losses but those of the anchors, averaged as ``loss`` is.
    - ``anchor_gate`` in the log is the share of the last steps, as many as the logger's interval, in which the gate was
      open (of gates per class, the mean share of open gates), not that of the last step.
    - After a tenth and after a third of the training, a warning names the classes that keep a gate shut, if it was open
      in no step of the last tenth, and says what to do.
    - TensorBoard, and other backends of mmengine's visualizer but the local one, get the ``confidence`` of every class;
      so do those derived from them.

    It needs the LoggerHook and RuntimeInfoHook of mmengine, and keeps no state: a resumed run goes on. It reads tensors
    when a line is logged, and for a warning. ``tools/train.py`` adds it to ``default_hooks``, as ``anchor_monitor``,
    where a model has semantic anchors and no hook of the config is one; ``default_hooks = dict(anchor_monitor=None)``
    switches it off. A model without anchors is left alone.

    Args:
        warn_after: Shares of the training, in (0, 1], after which shut gates are looked for; none before the 10th step.
        per_class: Give the confidence of every class to the visualizer.

    Raises:
        ValueError: A share outside (0, 1].

    Example::

        custom_hooks = [dict(type='AnchorMonitorHook', per_class=False)]
    """

    def __init__(self, warn_after: Sequence[float] = (1 / 10, 1 / 3), per_class: bool = True) -> None:
        is_list = are_weights(warn_after) and all(0 < share <= 1 for share in warn_after)
        check(is_list, 'warn_after', warn_after, 'a list of numbers in (0, 1], or an empty one')
        check_flag('per_class', per_class)
        self.warn_after = warn_after
        self.per_class = per_class

    def before_train(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        self._heads = anchor_heads(model)
        if not self._heads:
            return
        # The names of its own losses: what mmengine logs as `loss` may be one of them, or the sum of all.
        self._losses: Optional[List[str]] = None
        self._handle = model.register_forward_hook(self._see_losses)
        self._classes = (getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}).get('classes')
        self._interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 10)
        if isinstance(runner.train_loop, EpochBasedTrainLoop):  # which logs at the end of a shorter epoch
            self._interval = min(self._interval, len(runner.train_dataloader))
        steps = [math.ceil(share * runner.max_iters) for share in self.warn_after]
        self._warn_at = {max(step, FEWEST_STEPS) for step in steps}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Optional[dict] = None
    ) -> None:
        if not self._heads or self._losses is None or outputs is None:
            return
        self._handle.remove()
        gates = [name for name in outputs if name.endswith('anchor_gate')]
        self._average(runner, gates, self._interval)
        if 'task' not in outputs:
            self._log_task(runner)
        if not is_main_process():
            return
        if self.per_class and self.every_n_inner_iters(batch_idx, self._interval):
            self._show_confidence(runner)
        if runner.iter + 1 in self._warn_at:
            self._warn_of_shut_gates(runner)

    def _see_losses(self, model: nn.Module, inputs: tuple, output: Any) -> None:
        """Forward hook of the model: keep the names of its losses but those of the anchors."""
        if isinstance(output, dict):
            self._losses = [name for name in output if 'loss' in name and not name.endswith(ANCHOR_LOSSES)]

    def _log_task(self, runner: Runner) -> None:
        logged = runner.message_hub.log_scalars  # numbers: RuntimeInfoHook has read them
        buffers = [logged[f'train/{name}'] for name in self._losses if f'train/{name}' in logged]
        if buffers:
            runner.message_hub.update_scalar('train/task', sum(buffer.current() for buffer in buffers))
            self._average(runner, ['task'], runner.log_processor.window_size)

    @staticmethod
    def _average(runner: Runner, names: List[str], steps: int) -> None:
        """Let the log show the mean over the last ``steps`` steps, where the config does not say what to show."""
        processor = runner.log_processor
        given = {each.get('log_name', each['data_src']) for each in processor.custom_cfg}
        new = [dict(data_src=name, method_name='mean', window_size=steps) for name in names if name not in given]
        if new:  # a list of its own: the other one may be part of the config
            processor.custom_cfg = [*processor.custom_cfg, *new]

    def _show_confidence(self, runner: Runner) -> None:
        backends = scalar_backends(runner.visualizer)
        if not backends:
            return
        scalars: Dict[str, float] = {}
        for name, head in self._heads.items():
            place = 'anchor_conf' if len(self._heads) == 1 else f'anchor_conf/{name}'
            values = zip(class_names(head, self._classes), head.confidence.tolist())
            scalars.update({f'{place}/{label}': value for label, value in values})
        for backend in backends:
            backend.add_scalars(scalars, step=runner.iter + 1)

    def _warn_of_shut_gates(self, runner: Runner) -> None:
        steps = max(math.ceil(runner.max_iters / 10), FEWEST_STEPS)
        for name, head in self._heads.items():
            if head.steps_shut.max() >= steps and shut_classes(head, steps):
                text = explain_gate(runner, name, head, class_names(head, self._classes), steps)
                runner.logger.warning(f'After {runner.iter + 1} of {runner.max_iters} iterations, {text}')


def scalar_backends(visualizer: Visualizer) -> List[BaseVisBackend]:
    """Return the backends of a visualizer that show scalars to the user, and have no file with the lines of the log."""
    registered = [VISBACKENDS.get(f'{name}VisBackend') for name in BACKENDS]  # None in a version that has it not
    kinds = tuple(kind for kind in registered if kind is not None)
    return [backend for backend in visualizer._vis_backends.values() if isinstance(backend, kinds)]


def anchor_heads(model: Any) -> Dict[str, Any]:
    """Return the semantic anchor heads that are trained, by the name of what they are in: a teacher's are not."""
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    found = {name: each for name, each in modules if hasattr(each, 'gate_threshold') and hasattr(each, 'confidence')}
    trained = {name: head for name, head in found.items() if not name.startswith('teacher.')}
    return {name.replace('student.', '').replace('.anchor_head', ''): head for name, head in trained.items()}


def class_names(head: Any, classes: Optional[Sequence[str]]) -> List[str]:
    """Return the names of the classes of a head: those of the data where they are as many and differ, else numbers."""
    if isinstance(classes, (list, tuple)) and len(set(classes)) == head.num_classes == len(classes):
        return list(map(str, classes))
    return [f'class {k}' for k in range(head.num_classes)]
