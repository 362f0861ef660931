import math
from itertools import islice
from typing import Any, Iterator, Optional

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from ..checks import check, check_flag, check_integer, is_number
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


@DATA_SAMPLERS.register_module()
class LabelledUnlabelledSampler(Sampler):
    """Mixes labelled and unlabelled images in a fixed ratio, without end, for iteration-based training.

    It gives the indices of ``labelled`` labelled images, then of ``unlabelled`` unlabelled ones, and so on. With a
    ``batch_size`` of their sum, every batch of every process is made so. Each pool is gone through in one random order
    after the other, of which every process takes every ``world_size``-th image: in a pass over a pool, no image comes
    in two processes. A pool that is smaller than its share of a batch comes round within the batch.

    Args:
        dataset: A :class:`SemiSupervisedDataset`, or what has ``num_labelled`` and ``num_unlabelled`` as it has.
        labelled: Labelled images per batch and process.
        unlabelled: Unlabelled images per batch and process.
        shuffle: Whether the order is random.
        seed: Of the order; None takes the same random one in all processes.

    Raises:
        ValueError: A bad argument, or a data set that has no labelled and unlabelled images.

    Example::

        train_dataloader = dict(
            batch_size=8, sampler=dict(type='LabelledUnlabelledSampler', labelled=4, unlabelled=4), dataset=...)
    """

    def __init__(
        self, dataset: Any, labelled: int, unlabelled: int, shuffle: bool = True, seed: Optional[int] = None
    ) -> None:
        check_integer('labelled', labelled, 1)
        check_integer('unlabelled', unlabelled, 1)
        check_flag('shuffle', shuffle)
        for name in ('num_labelled', 'num_unlabelled'):
            valid = f'a SemiSupervisedDataset, with {name} > 0'
            check(getattr(dataset, name, 0) > 0, 'dataset', type(dataset).__name__, valid)
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.labelled = labelled
        self.unlabelled = unlabelled
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        # The two orders are to have nothing to do with each other, nor with those of the next seed.
        generator = torch.Generator().manual_seed(self.seed)
        self._seeds = torch.randint(2**62, (2,), generator=generator).tolist()
        self._indices = self._stream(0)

    def _pool(self, size: int, seed: int, start: int) -> Iterator[int]:
        """Yield this process's part of one order after the other, from its ``start``-th image on."""
        generator = torch.Generator().manual_seed(seed)
        position = start * self.world_size + self.rank
        while True:
            order = torch.randperm(size, generator=generator) if self.shuffle else torch.arange(size)
            yield from order[position :: self.world_size].tolist()
            # How far into the next order this one's last step leads.
            position = max(position - size, (position - size) % self.world_size)

    def _stream(self, start: int) -> Iterator[int]:
        """Yield the indices of this process, from its ``start``-th on."""
        batches, place = divmod(start, self.labelled + self.unlabelled)
        first = min(place, self.labelled)
        dataset = self.dataset
        labelled = self._pool(dataset.num_labelled, self._seeds[0], batches * self.labelled + first)
        unlabelled = self._pool(dataset.num_unlabelled, self._seeds[1], batches * self.unlabelled + place - first)
        while True:
            yield from islice(labelled, self.labelled - first)
            for index in islice(unlabelled, self.unlabelled - (place - first)):
                yield dataset.num_labelled + index
            place = first = 0

    def __iter__(self) -> Iterator[int]:
        yield from self._indices

    def skip(self, num_samples: int) -> None:
        """Go on after the first ``num_samples`` indices of this process, counted from the start, as a resumed run does.

        mmengine's InfiniteSampler has it, too. A runner that takes and drops indices instead gets the same ones next.
        """
        check_integer('num_samples', num_samples, 0)
        self._indices = self._stream(num_samples)

    def __len__(self) -> int:
        """Return the number of all images, as mmengine's InfiniteSampler does."""
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: there are no epochs."""


def check_power(power: float) -> None:
    """Raise a ValueError unless ``power`` is a finite number."""
    check(is_number(power) and math.isfinite(power), 'power', power, 'a finite number')
