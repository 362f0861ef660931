from contextlib import contextmanager
from typing import Iterator

import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn

from ...checks import check_flag, check_probability
from ...registry import MODELS


@MODELS.register_module()
class MeanTeacher(ExponentialMovingAverage):
    """The moving average of a student's parameters: ``teacher = (1 - momentum) * teacher + momentum * student``.

    Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017. mmengine's moving average, with a ramp
    and with the ends of the range of ``momentum``. The first update copies the student. Buffers are copied in every
    update: the running statistics of batch normalisation and the semantic anchors, an average already, are the
    student's, and so are the predefined anchors.

    Args:
        model: The student.
        momentum: Share of the student in an update, in [0, 1].
        ramp_up: Take ``max(momentum, 1 / (t + 1))`` as the share in update t = 0, 1, ...: early in training the teacher
            is the plain mean of the students, and forgets random weights.

    Raises:
        ValueError: A momentum outside [0, 1].
    """

    def __init__(self, model: nn.Module, momentum: float = 0.001, ramp_up: bool = True) -> None:
        check_probability('teacher.momentum', momentum, ends=True)
        check_flag('teacher.ramp_up', ramp_up)
        super().__init__(model)
        self.momentum = momentum
        self.ramp_up = ramp_up

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the student in."""
        # As arithmetic on `steps`: mmengine's reads it, for which a GPU would be waited for in every step.
        first = 1 / (self.steps + 1)
        share = first.clamp(min=self.momentum) if self.ramp_up else torch.where(first == 1, first, self.momentum)
        for averaged, source in zip(self.module.parameters(), model.parameters()):
            averaged.lerp_(source, share.to(averaged.dtype))
        for averaged, source in zip(self.module.buffers(), model.buffers()):
            averaged.copy_(source)
        self.steps += 1


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and back into the modes that each of its modules was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
