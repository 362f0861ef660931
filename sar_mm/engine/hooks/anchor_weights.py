from typing import List, Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ...checks import check, check_integer, check_weight
from ...registry import HOOKS

NAMES = ('anchor_weight', 'pull_weight')


@HOOKS.register_module()
class AnchorWeightHook(Hook):
    """Moves the weights of the SAR losses linearly, from those of the config to those given here.

    The iteration alone decides the weights: a resumed run continues as if it had not been interrupted.

    Args:
        end: The iteration from which on the weights are those given here.
        begin: The last iteration with the weights of the config.
        anchor_weight: Final weight of the anchor classification loss. None: it stays.
        pull_weight: Final weight of the pull. None: it stays.

    Raises:
        ValueError: ``end`` is not after ``begin``, a negative weight, no weight; when training starts: the model has no
            SARLoss.

    Example::

        custom_hooks = [dict(type='AnchorWeightHook', begin=2000, end=4000, pull_weight=1.0)]
    """

    def __init__(
        self,
        end: int,
        begin: int = 0,
        anchor_weight: Optional[float] = None,
        pull_weight: Optional[float] = None,
    ) -> None:
        check_integer('begin', begin, 0)
        check_integer('end', end, begin + 1)
        given = {name: weight for name, weight in zip(NAMES, (anchor_weight, pull_weight)) if weight is not None}
        check(bool(given), 'pull_weight', pull_weight, 'a weight here or for anchor_weight')
        for name, weight in given.items():
            check_weight(name, weight)
        self.begin = begin
        self.end = end
        self.final = given

    def before_train(self, runner: Runner) -> None:
        self._losses = sar_losses(runner.model)
        check(bool(self._losses), 'model', type(runner.model).__name__, 'a model with a SARLoss for AnchorWeightHook')
        self._initial = [{name: getattr(loss, name) for name in self.final} for loss in self._losses]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None) -> None:
        share = min(max((runner.iter - self.begin) / (self.end - self.begin), 0.0), 1.0)
        for loss, initial in zip(self._losses, self._initial):
            for name, final in self.final.items():
                setattr(loss, name, initial[name] + share * (final - initial[name]))


def sar_losses(model: nn.Module) -> List[nn.Module]:
    return [module for module in model.modules() if all(hasattr(module, name) for name in NAMES)]
