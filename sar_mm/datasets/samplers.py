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
    """Draws images with replacement, class c with a probability proportional to n_c ** power, for epoch-based training.

    ``power=1`` draws images as they are distributed, 0.5 is square-root sampling, and 0 class-balanced sampling
    (Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020). Within a class,
    images have the same probability. An epoch is ``len(dataset)`` draws; of the draws that all processes share, each
    takes every ``world_size``-th. To leave no image out, use mmengine's ``ClassBalancedDataset`` with any sampler.

    Args:
        dataset: A classification data set with one label per image.
        power: An attribute that may change between epochs, as :class:`DeferredResamplingHook` does.
        seed: Seed of the draws; None: a random one, the same in all processes.

    Raises:
        ValueError: A bad argument, an empty data set, or one without one label per image.

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
        # A class without images has probability 0, though 0 ** 0 is 1.
        weights = torch.where(counts > 0, counts.clamp(min=1) ** self.power, 0 * counts)
        drawn = torch.multinomial(weights, number, replacement=True, generator=generator)
        offsets = torch.rand(number, dtype=torch.float64, generator=generator) * counts[drawn]
        indices = self._by_class[self._starts[drawn] + offsets.long()].tolist()
        # As in mmengine's DefaultSampler, the first draws are repeated so that all processes get the same number.
        indices += indices[: self.num_samples * self.world_size - number]
        return iter(indices[self.rank :: self.world_size])

    def __len__(self) -> int:
        """Return the number of draws per epoch and process."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; each has another draw."""
        self.epoch = epoch


@DATA_SAMPLERS.register_module()
class LabeledUnlabeledSampler(Sampler):
    """Mixes labeled and unlabeled images in a fixed ratio, without end, for iteration-based training.

    It gives the indices of ``labeled`` labeled images, then of ``unlabeled`` unlabeled ones, and so on: with a
    ``batch_size`` of their sum, every batch of every process has this ratio. Each pool is repeated in a new random
    order each time, and every process takes every ``world_size``-th image: in one pass over a pool, no image is in two
    processes. A pool smaller than its share of a batch repeats within the batch.

    Args:
        dataset: A :class:`SemiSupervisedDataset`, or one with its ``num_labeled`` and ``num_unlabeled``.
        labeled: Labeled images per batch and process.
        unlabeled: Unlabeled images per batch and process.
        shuffle: Whether the order is random.
        seed: Seed of the order; None: a random one, the same in all processes.

    Raises:
        ValueError: A bad argument, or a data set that has no labeled and unlabeled images.

    Example::

        train_dataloader = dict(
            batch_size=8, sampler=dict(type='LabeledUnlabeledSampler', labeled=4, unlabeled=4), dataset=...)
    """

    def __init__(
        self, dataset: Any, labeled: int, unlabeled: int, shuffle: bool = True, seed: Optional[int] = None
    ) -> None:
        check_integer('labeled', labeled, 1)
        check_integer('unlabeled', unlabeled, 1)
        check_flag('shuffle', shuffle)
        for name in ('num_labeled', 'num_unlabeled'):
            valid = f'a SemiSupervisedDataset, with {name} > 0'
            check(getattr(dataset, name, 0) > 0, 'dataset', type(dataset).__name__, valid)
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        # Independent seeds of the two pools, also of those of the next seed.
        self._seeds = torch.randint(2**62, (2,), generator=torch.Generator().manual_seed(self.seed)).tolist()
        self._indices = self._stream()

    def _pool(self, size: int, seed: int) -> Iterator[int]:
        """Yield one order of all images of a pool after the other."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(size, generator=generator) if self.shuffle else torch.arange(size)
            yield from order.tolist()

    def _stream(self) -> Iterator[int]:
        """Yield the indices of this process."""
        sizes = (self.dataset.num_labeled, self.dataset.num_unlabeled)
        labeled, unlabeled = (
            islice(self._pool(size, seed), self.rank, None, self.world_size) for size, seed in zip(sizes, self._seeds)
        )
        while True:
            yield from islice(labeled, self.labeled)
            yield from (sizes[0] + index for index in islice(unlabeled, self.unlabeled))

    def __iter__(self) -> Iterator[int]:
        yield from self._indices

    def skip(self, num_samples: int) -> None:
        """Continue after the first ``num_samples`` indices of this process, counted from the start; a resumed run does.

        mmengine's InfiniteSampler has this method, too.
        """
        check_integer('num_samples', num_samples, 0)
        self._indices = islice(self._stream(), num_samples, None)

    def __len__(self) -> int:
        """Return the number of all images, as mmengine's InfiniteSampler does."""
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: there are no epochs."""


def check_power(power: float) -> None:
    """Raise a ValueError unless ``power`` is a finite number."""
    check(is_number(power) and math.isfinite(power), 'power', power, 'a finite number')
