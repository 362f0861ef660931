"""Loops of the runner."""

from typing import Any, Dict, List, Union

from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, ValLoop
from torch import nn
from torch.utils.data import DataLoader

from ..registry import LOOPS

STUDENT, TEACHER = 'student', 'teacher'


@LOOPS.register_module()
class TeacherStudentValLoop(ValLoop):
    """Validate student and teacher of a semi-supervised model, each on all of the validation data.

    The metrics are those of the evaluator, as ``student/<metric>`` and, with a teacher, ``teacher/<metric>``: any of
    them can be the ``save_best`` of a CheckpointHook. Hooks see one validation, with the batches of both parts.

    Args:
        runner: The runner, with a SemiSegmentor or a SemiClassifier.
        dataloader: Validation data, or their config.
        evaluator: Metrics, or their config.
        fp16: Validate in mixed precision.

    Raises:
        TypeError: The model has no ``predict_on``.

    Example::

        val_cfg = dict(type='TeacherStudentValLoop')
        default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='teacher/accuracy/top1'))
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: Union[DataLoader, dict],
        evaluator: Union[Evaluator, dict, List],
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16=fp16)
        # The loop is built before the first training step: a model that cannot be validated so costs no training.
        self._find_model()

    def run(self) -> Dict[str, object]:
        """Validate the student, then the teacher, and return the metrics of both; ``predict_on`` stays."""
        model: Any = self._find_model()
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        metrics = {}
        before = model.predict_on
        try:
            for part in (STUDENT, TEACHER) if getattr(model, 'teacher', None) is not None else (STUDENT,):
                model.predict_on = part
                metrics.update({f'{part}/{name}': value for name, value in self._evaluate().items()})
        finally:
            model.predict_on = before
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics

    def _evaluate(self) -> Dict[str, object]:
        """Run over the data once; return the metrics and, as in mmengine, the model's validation losses."""
        self.val_loss.clear()
        for index, batch in enumerate(self.dataloader):
            self.run_iter(index, batch)
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        losses = {name: history.mean() for name, history in self.val_loss.items()}
        if losses:
            metrics.update(losses, val_loss=sum(value for name, value in losses.items() if 'loss' in name))
        return metrics

    def _find_model(self) -> nn.Module:
        model = self.runner.model
        while is_model_wrapper(model):
            model = model.module
        if getattr(model, 'predict_on', None) not in (STUDENT, TEACHER):
            raise TypeError(
                f'{type(self).__name__} is for SemiSegmentor and SemiClassifier, whose predict_on says which of '
                f'{STUDENT} and {TEACHER} predicts, but the model is a {type(model).__name__}: '
                "use val_cfg = dict(type='ValLoop')"
            )
        return model
