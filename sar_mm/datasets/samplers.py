import math
from numbers import Real
from typing import Any, Iterator, Optional

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from ..checks import check
from ..registry import DATA_SAMPLERS
from .class_counts import image_label


@DATA_SAMPLERS.register_module()
class ClassPowerSampler(Sampler):
    """Draws images with replacement, class c with a probability proportional to n_c ** power.

    ``power=1`` draws images as they are distributed, 0.5 is square-root sampling, and 0 class-balanced sampling
    (Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020). Within its class,
    every image has the same chance. An epoch is ``len(dataset)`` draws; several processes share one draw, each takes
    every ``world_size``-th of it. It is meant for epoch-based training.

    To show rare classes more often without leaving an image out, mmengine's ``ClassBalancedDataset`` repeats images by
    the repeat factor of LVIS; it is a data set wrapper and goes with any sampler.

    Args:
        dataset: A classification data set with one label per image.
        power: See above; an attribute that may be changed between epochs, as :class:`DeferredResamplingHook` does.
        seed: Of the draws; None takes the same random one in all processes.

    Example::

        train_dataloader = dict(sampler=dict(type='ClassPowerSampler', power=0.5))
    """

    def __init__(self, dataset: Any, power: float = 0.0, seed: Optional[int] = None) -> None:
        check_power(power)
        self.rank, self.world_size = get_dist_info()
        self.power = power
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        labels = torch.from_numpy(image_label(dataset))
        check(len(labels) > 0, 'dataset', dataset, 'a data set that is not empty')
        self._by_class = labels.argsort(stable=True)  # images of the first class, then of the second, ...
        self._counts = labels.bincount()
        self._starts = self._counts.cumsum(0) - self._counts
        self.num_samples = math.ceil(len(labels) / self.world_size)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        number = len(self._by_class)
        counts = self._counts.double()
        # A class without images has no chance, though 0 ** 0 is 1.
        chances = torch.where(counts > 0, counts.clamp(min=1) ** self.power, 0 * counts)
        drawn = torch.multinomial(chances, number, replacement=True, generator=generator)
        places = torch.rand(number, dtype=torch.float64, generator=generator) * counts[drawn]
        indices = self._by_class[self._starts[drawn] + places.long()].tolist()
        # As in mmengine's DefaultSampler, the first ones come again so that all processes get the same number.
        indices += indices[: self.num_samples * self.world_size - number]
        return iter(indices[self.rank :: self.world_size])

    def __len__(self) -> int:
        """Return the number of draws per epoch and process."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, each of which has another draw."""
        self.epoch = epoch


def check_power(power: float) -> None:
    """Raise a ValueError unless ``power`` is a finite number."""
    check(isinstance(power, Real) and math.isfinite(power), 'power', power, 'a finite number')
