from typing import Any, Dict, List

import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import BaseDataElement
from torch import nn

from ...checks import UsageError, check


class SemiDataPreprocessor(BaseDataPreprocessor):
    """Stacks labeled images, strong views (``strong...``, sorted by name) and weak views to one batch, in this order.

    Args:
        inner: The data preprocessor of the student.
        same_geometry: Whether all views of an image must have the same geometry, as pseudo-labels of pixels need.

    Raises:
        ValueError: The inner one mixes images, or makes scores of labels.
    """

    def __init__(self, inner: nn.Module, same_geometry: bool) -> None:
        super().__init__()
        for name, off in (('batch_augments', None), ('to_onehot', False)):
            value = getattr(inner, name, off)
            check(not value, f'data_preprocessor.{name}', value, f'{off} in semi-supervised training')
        self.inner = inner
        self.same_geometry = same_geometry
        self._sizes: Dict[str, int] = {}

    def forward(self, data: Any, training: bool = False) -> dict:
        """Return what the model is called with; in training ``inputs``, ``data_samples`` and ``branches`` (name: size).

        Args:
            data: In training, a list of items of a SemiSupervisedDataset; else what the inner preprocessor takes.
            training: Whether it is for training.

        Raises:
            ValueError: Training data without labeled or unlabeled images, with other numbers of them than before, of
                different sizes, or with views of an image whose geometry differs.
        """
        if not training:
            return self.inner(data, False)
        if not isinstance(data, (list, tuple)) or not all(isinstance(item, BaseDataElement) for item in data):
            raise UsageError(
                'semi-supervised training needs train_dataloader.dataset of type SemiSupervisedDataset, which gives '
                f'labeled and unlabeled images; but the batch is a {type(data).__name__}'
            )
        items: Dict[str, List[dict]] = {}
        for item in data:
            for name, packed in item.items():
                items.setdefault(name, []).append(packed)
        # An item keeps its views in a set, whose order differs between processes.
        strong = sorted(name for name in items if name.startswith('strong'))
        if not {'labeled', 'weak'} <= items.keys() or not strong:
            raise UsageError(
                'a batch for semi-supervised training holds labeled images and weak and strong views of unlabeled '
                f'ones, but this one has only {sorted(items)}: use LabeledUnlabeledSampler, with a batch_size of the '
                'dataloader that is the sum of its `labeled` and `unlabeled`'
            )
        names = ['labeled', *strong, 'weak']
        sizes = {name: len(items[name]) for name in names}
        # The sampler keeps the ratio only if batch_size is what it counts with, and it does not know batch_size.
        if self._sizes and sizes != self._sizes:
            raise UsageError(
                f'the batch holds {sizes}, the one before {self._sizes}: batch_size of the dataloader has to be the '
                'sum of `labeled` and `unlabeled` of LabeledUnlabeledSampler'
            )
        self._sizes = sizes
        batches = [self.inner(pseudo_collate(items[name]), True) for name in names]
        shapes = {name: tuple(batch['inputs'].shape[1:]) for name, batch in zip(names, batches)}
        if len(set(shapes.values())) > 1:
            raise UsageError(f'Expected labeled images and all views to be of one size, but got {shapes}')
        samples = {name: batch['data_samples'] for name, batch in zip(names, batches)}
        if self.same_geometry:
            check_geometry(samples, strong)
        return dict(
            inputs=torch.cat([batch['inputs'] for batch in batches]),
            data_samples=[sample for name in names for sample in samples[name]],
            branches=sizes,
        )


def check_geometry(samples: Dict[str, list], strong: List[str]) -> None:
    """Raise a ValueError if a strong view was resized or flipped differently; crops are not known."""
    for name in strong:
        for weak, view in zip(samples['weak'], samples[name]):
            for key in ('img_shape', 'scale_factor', 'flip', 'flip_direction'):
                pair = weak.metainfo.get(key), view.metainfo.get(key)
                if str(pair[0]) != str(pair[1]):
                    raise UsageError(
                        f'{key} of an image is {pair[0]} in its weak and {pair[1]} in its {name} view: transforms that '
                        'move pixels belong in front of MultiBranch, where all views share them'
                    )
