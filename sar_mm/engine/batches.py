"""Data loaders that give no batch, checked before training."""

from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from torch.utils.data import DataLoader, IterableDataset

from ..checks import UsageError
from ..datasets.samplers import LabeledUnlabeledSampler

_ENDLESS = (InfiniteSampler, LabeledUnlabeledSampler)


def check_batches(loop: BaseLoop, place: str) -> None:
    """Raise a UsageError where the data loader of a loop gives no batch.

    mmengine would train zero steps and succeed, or end in a StopIteration. ``max_epochs=0`` and ``max_iters=0`` ask
    for zero steps and pass.

    Args:
        loop: Of training or validation.
        place: Of its data loader in the config.
    """
    asked = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else getattr(loop, 'max_iters', None)
    loader = getattr(loop, 'dataloader', None)
    if asked == 0 or not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return
    dataset: Any = loader.dataset
    number, name = len(dataset), type(dataset).__name__
    options = [f'{option}={getattr(_batches(loader), option, None)}' for option in ('batch_size', 'drop_last')]
    if number == 0:
        raise UsageError(
            f'{place} gives no batch ({", ".join(options)}): the {name} of {place}.dataset has 0 images; check the '
            'paths and the options that choose images in it'
        )
    if _gives_batches(loader):
        return
    own = _length(_sampler(loader))
    share = '' if own in (None, number) else f', of which its sampler gives this process {own}'
    remedy = 'another sampler' if own == 0 else f'drop_last=False, or batch_size={own or number} or less'
    raise UsageError(
        f'{place} gives no batch with {" and ".join(options)}: the {name} of {place}.dataset has {number} images'
        f'{share}; set {remedy}, or give it more images'
    )


def _gives_batches(loader: DataLoader) -> bool:
    """Return whether a data loader of a data set that is not empty gives a batch; no image is loaded."""
    if _length(loader) != 0 or isinstance(_sampler(loader), _ENDLESS):
        return True
    # An endless sampler of the user may have the length of the data set, as mmengine's has.
    return next(iter(_batches(loader)), None) is not None


def _batches(loader: DataLoader) -> Any:
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler  # bool() of an empty one is False


def _sampler(loader: DataLoader) -> Any:
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def _length(loader: Any) -> Any:
    try:
        return len(loader)
    except TypeError:  # it has no length
        return None
