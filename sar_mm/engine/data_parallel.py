import logging
from typing import Any, Dict

import torch
from mmengine.dist import all_gather, broadcast
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from ..checks import check_integer
from ..registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class SARDistributedDataParallel(MMDistributedDataParallel):
    """MMDistributedDataParallel that does not send the gradients of the projectors of semantic anchors.

    These are the same in all processes: the same weights embed the same anchors, which the same classifier classifies.
    For ResNet-50 with 1,000 classes they are a third of all gradients. Should the weights of the projectors differ all
    the same, which is looked for every ``check_interval`` steps, they and the states of their optimizer become those of
    the main process, with a warning.

    Args:
        module: The model; one without semantic anchors is wrapped as by MMDistributedDataParallel.
        check_interval: Steps from one comparison to the next, at least 1.
        kwargs: See MMDistributedDataParallel.

    Raises:
        ValueError: ``check_interval`` below 1.

    Example::

        model_wrapper_cfg = dict(type='SARDistributedDataParallel', broadcast_buffers=False)
    """

    def __init__(self, module: nn.Module, *args, check_interval: int = 1000, **kwargs) -> None:
        check_integer('check_interval', check_interval, minimum=1)
        own = projector_parameters(module)
        # Where PyTorch's DistributedDataParallel looks for what it leaves out.
        self._set_params_and_buffers_to_ignore_for_model(module, list(own))
        super().__init__(module, *args, **kwargs)
        self.check_interval = check_interval
        self._own = list(own.values())
        self._steps = 0

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> Dict[str, Tensor]:
        log = super().train_step(data, optim_wrapper)
        self._steps += 1
        if self._own and self._steps % self.check_interval == 0:
            self.compare_projectors(optim_wrapper)
        return log

    def compare_projectors(self, optim_wrapper: OptimWrapper) -> None:
        """Compare the weights of the projectors; where they differ, all processes take those of the main one."""
        # Bits rather than numbers: NaN is not equal to itself.
        sums = torch.stack([weight.detach().double().sum() for weight in self._own]).view(torch.int64)
        if all(torch.equal(sums, other) for other in all_gather(sums)):
            return
        message = (
            f'the projectors of semantic anchors differ between processes after {self._steps} steps: all take those of '
            "the main process. Set model_wrapper_cfg=dict(type='MMDistributedDataParallel') if this recurs"
        )
        print_log(message, logger='current', level=logging.WARNING)
        wrappers = optim_wrapper.values() if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]
        for weight in self._own:
            broadcast(weight.data)
            for each in wrappers:
                states = each.optimizer.state.get(weight, {}).values()
                for state in (state for state in states if isinstance(state, Tensor)):
                    broadcast(state)


def projector_parameters(module: nn.Module) -> Dict[str, nn.Parameter]:
    """Return the trained parameters of the projectors of semantic anchors, by their names in the module."""
    prefixes = [f'{name}.projector.' for name, each in module.named_modules() if hasattr(each, 'semantic_anchors')]
    named = module.named_parameters()
    return {name: each for name, each in named if each.requires_grad and name.startswith(tuple(prefixes))}
