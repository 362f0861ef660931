from contextlib import contextmanager
from typing import Any, Dict, Iterator

import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...checks import check_flag, check_probability
from ...registry import MODELS
from ..anchor_head import SemanticAnchorHead
from .task_losses import keep_running_stats


@MODELS.register_module()
class MeanTeacher(ExponentialMovingAverage):
    """The moving average of a student's parameters: ``teacher = (1 - momentum) * teacher + momentum * student``.

    Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017. The first update copies the student.
    Buffers, such as running statistics and semantic anchors, are copied in every update.

    Args:
        model: The student.
        momentum: Share of the student in an update, in (0, 1), as in mmengine's ExponentialMovingAverage.
        ramp_up: Take ``max(momentum, 1 / (t + 1))`` as the share in update t = 0, 1, ...: at first the teacher is the
            plain mean of the students.

    Raises:
        ValueError: A momentum outside (0, 1).
    """

    def __init__(self, model: nn.Module, momentum: float = 0.001, ramp_up: bool = True) -> None:
        check_probability('teacher.momentum', momentum, ends=False)
        check_flag('teacher.ramp_up', ramp_up)
        super().__init__(model, momentum)
        self.ramp_up = ramp_up

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with the student's parameters, and copy its buffers."""
        # Arithmetic on `steps`: mmengine's update reads its value, and so waits for the GPU in every step.
        first = 1 / (self.steps + 1)
        share = first.clamp(min=self.momentum) if self.ramp_up else torch.where(first == 1, first, self.momentum)
        for averaged, source in zip(self.module.parameters(), model.parameters()):
            averaged.lerp_(source, share.to(averaged.dtype))
        for own, buffer in zip(self.module.buffers(), model.buffers()):
            own.copy_(buffer)
        self.steps += 1


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and afterwards each of its modules into the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def labeling(student: nn.Module) -> Iterator[None]:
    """Put a student into evaluation mode, except that batch normalisation uses the statistics of the batch.

    Running statistics stay as they are: they are updated when the batch is trained on.
    """
    norms = [module for module in student.modules() if isinstance(module, _BatchNorm) and module.training]
    with evaluating(student):
        for norm in norms:
            norm.training = True
        with keep_running_stats(student):
            yield


def start_as_the_student(teacher: Any, student: nn.Module, state_dict: Dict[str, Any], prefix: str) -> None:
    """Complete the teacher's weights in a checkpoint by the student's, where it has none that fit.

    This is so for a classifier of another number of classes. The teacher's updates are then counted from 0 again.
    """
    own = student.state_dict()
    modules = teacher.module.named_modules()
    # Anchor heads load buffers of other shapes themselves.
    anchors = tuple(f'{name}.' for name, module in modules if isinstance(module, SemanticAnchorHead))
    for name, value in teacher.module.state_dict().items():
        wanted, source = f'{prefix}teacher.module.{name}', f'{prefix}student.{name}'
        is_left = wanted in state_dict and name.startswith(anchors)
        if name in own and not is_left and not fits(state_dict.get(wanted), value):
            given = state_dict.get(source)
            state_dict[wanted] = given if fits(given, value) else own[name]
            if f'{prefix}teacher.steps' in state_dict:
                state_dict[f'{prefix}teacher.steps'] = torch.zeros_like(teacher.steps)


def fits(given: Any, own: Any) -> bool:
    """Return whether an entry of a checkpoint loads into the one of a model."""
    return isinstance(given, torch.Tensor) and given.shape == own.shape
