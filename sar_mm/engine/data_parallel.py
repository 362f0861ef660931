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

BUFFERS = ('semantic_anchors', 'initialized')


@MODEL_WRAPPERS.register_module()
class SARDistributedDataParallel(MMDistributedDataParallel):
    """MMDistributedDataParallel that does not send the gradients of the projectors of semantic anchors.

    These are the same in all processes: the same weights embed the same anchors, which the same classifier classifies.
    For ResNet-50 with 1,000 classes they are a third of all gradients. Should projectors or semantic anchors differ all
    the same, which is looked for after the first step and every ``check_interval`` steps, they and the states of their
    optimizer become those of the main process, with a warning. Where the loss or the anchor head is a subclass that may
    use features, the gradients are sent.

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
        heads = anchor_heads(module)
        own = projector_parameters(module)
        trained = sum(each.requires_grad for each in module.parameters())
        own = own if len(own) < trained else {}  # PyTorch refuses a model without a gradient to send
        if own:
            # Where PyTorch's DistributedDataParallel looks for what it leaves out.
            others = getattr(module, '_ddp_params_and_buffers_to_ignore', [])
            self._set_params_and_buffers_to_ignore_for_model(module, [*others, *own])
        super().__init__(module, *args, **kwargs)
        self.check_interval = check_interval
        self._own = list(own.values())
        self._heads = list(heads)
        self._steps = 0

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> Dict[str, Tensor]:
        log = super().train_step(data, optim_wrapper)
        self._steps += 1
        if self._own and (self._steps == 1 or self._steps % self.check_interval == 0):
            self.compare_projectors(optim_wrapper)
        return log

    def compare_projectors(self, optim_wrapper: OptimWrapper) -> None:
        """Compare projectors and semantic anchors; where they differ, all processes take those of the main one."""
        held = [*self._own, *(getattr(head, name) for head in self._heads for name in BUFFERS)]
        # Bits rather than numbers: NaN is not equal to itself.
        sums = torch.stack([each.detach().double().sum() for each in held]).view(torch.int64)
        if all(torch.equal(sums, other) for other in all_gather(sums)):
            return
        message = (
            f'the projectors of semantic anchors differ between processes after {self._steps} steps: all take those of '
            "the main process. If this recurs, set model_wrapper_cfg=dict(type='MMDistributedDataParallel', "
            'broadcast_buffers=False)'
        )
        print_log(message, logger='current', level=logging.WARNING)
        wrappers = optim_wrapper.values() if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]
        for each in held:
            broadcast(each.data)
        for weight in self._own:
            for wrapper in wrappers:
                states = wrapper.optimizer.state.get(weight, {}).values()
                for state in (state for state in states if isinstance(state, Tensor)):
                    broadcast(state)


def anchor_heads(module: nn.Module) -> Dict[nn.Module, str]:
    """Return the anchor heads whose projectors have the same gradients everywhere, with their names in the module."""
    named = module.named_modules()
    return {each: name for name, each in named if getattr(each, 'has_shared_gradients', False)}


def projector_parameters(module: nn.Module) -> Dict[str, nn.Parameter]:
    """Return the trained parameters of these projectors, by their names in the module."""
    prefixes = tuple(f'{name}.projector.' for name in anchor_heads(module).values())
    named = module.named_parameters()
    return {name: each for name, each in named if each.requires_grad and name.startswith(prefixes)}
