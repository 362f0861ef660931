"""Data loaders that give no batch, found before training."""

from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from torch.utils.data import DataLoader, IterableDataset

from ..checks import UsageError
from ..datasets.samplers import LabelledUnlabelledSampler

_ENDLESS = (InfiniteSampler, LabelledUnlabelledSampler)


def check_batches(loop: BaseLoop, place: str) -> None:
    """Raise a UsageError where a loop has to go through a data loader that gives no batch.

    mmengine trains zero steps then and succeeds, or ends in a StopIteration. A training of zero steps that is asked
    for, by ``max_epochs=0`` or ``max_iters=0``, is let through, as in mmengine.

    Args:
        loop: Of training or validation.
        place: Of its data loader in the config.
    """
    asked = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else getattr(loop, 'max_iters', None)
    loader = getattr(loop, 'dataloader', None)
    if asked == 0 or not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return
    number, name = len(loader.dataset), type(loader.dataset).__name__
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
    """Return whether a data loader gives any batch of a data set that is not empty; no image is loaded."""
    if _length(loader) != 0 or isinstance(_sampler(loader), _ENDLESS):
        return True
    # A sampler of the user may be without end, too, and its length be that of the data set, as it is in mmengine.
    return next(iter(_batches(loader)), None) is not None


def _batches(loader: DataLoader) -> Any:
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler  # which is false if it is empty


def _sampler(loader: DataLoader) -> Any:
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def _length(loader: Any) -> Any:
    try:
        return len(loader)
    except TypeError:  # it has none
        return None
