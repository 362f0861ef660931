from typing import Callable

import torch
from torch import nn


class Float32Buffers(nn.Module):
    """A module whose own buffers stay float32 where the model's dtype changes, and follow it to other devices.

    They are moving averages: in half precision, steps of 0.001 round to none.
    """

    def _apply(self, fn: Callable, *args, **kwargs) -> nn.Module:
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, *args, **kwargs)
        for name, buffer in self.named_buffers(recurse=False):
            if buffer.dtype != torch.float32:
                setattr(self, name, before[name].to(buffer.device))
        return self
