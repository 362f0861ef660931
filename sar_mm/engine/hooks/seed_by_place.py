from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from ...registry import HOOKS
from ..randomness import EndlessBatches, SeededLoader, seed_iteration, seed_samples


@HOOKS.register_module()
class SeedByPlaceHook(Hook):
    """Makes random numbers follow from the seed, the process and the place in the run, so that it can be resumed.

    The global random states are seeded before every training iteration, and samples are drawn from a
    :class:`SeededLoader`, which takes the place of the loop's data loader. :class:`ResumableRunner` registers it; it
    works with mmengine's Runner and FlexibleRunner, too, which need a seed in the config: they take that of the
    checkpoint after they have built the samplers.

    Example::

        randomness = dict(seed=0)
        custom_hooks = [dict(type='SeedByPlaceHook')]
    """

    priority = 'HIGHEST'  # other hooks may draw random numbers

    def __init__(self) -> None:
        self._is_training = False

    def before_train(self, runner: Runner) -> None:
        self._is_training = True
        loop = runner.train_loop
        was_seeded = isinstance(loop.dataloader, SeededLoader)
        _seed_loader(loop, runner.seed)
        batches = getattr(loop, 'dataloader_iterator', None)
        # mmengine 0.10.7, which skips no batches by itself, has begun to load those of a SeededLoader.
        is_theirs = batches is not None and (hasattr(batches, 'skip_iter') or not was_seeded)
        if is_theirs and isinstance(loop.dataloader, SeededLoader):
            loop.dataloader_iterator = EndlessBatches(loop.dataloader)

    def before_train_epoch(self, runner: Runner) -> None:
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            _start_pass(runner.train_loop, runner.epoch)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_iteration(runner.seed, runner.iter)

    def before_val(self, runner: Runner) -> None:
        _seed_loader(runner.val_loop, runner.seed)

    def before_val_epoch(self, runner: Runner) -> None:
        # Without a training, runner.iter would build the training loop, with its data.
        _start_pass(runner.val_loop, runner.iter if self._is_training else 0)

    def before_test(self, runner: Runner) -> None:
        _seed_loader(runner.test_loop, runner.seed)


def _seed_loader(loop: BaseLoop, seed: int) -> None:
    if hasattr(loop, 'dataloader'):
        loop.dataloader = seed_samples(loop.dataloader, seed)


def _start_pass(loop: BaseLoop, number: int) -> None:
    if isinstance(getattr(loop, 'dataloader', None), SeededLoader):
        loop.dataloader.start_pass(number)
