from contextlib import suppress
from typing import List, Optional

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from PIL import Image

from ..checks import check, check_ignore_index, check_integer
from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class CheckedLoading(BaseTransform):
    """Loads an image and its labels with the toolbox's own transforms, and names the file where something is wrong.

    It stands in front of the pipeline in their place. What they load is looked at in the data loader's workers: a label
    that is no class is an error of the data here, and on a GPU one that ends the process without a word about the data.

    Args:
        transforms: The transforms that load.
        num_classes: K; labels have to be in [0, K). None: their values are not looked at.
        ignore_index: A further label that pixels may have, which leaves them out.

    Raises:
        ValueError: In the constructor, an argument out of its range. When loading, a file that cannot be read, an empty
            image, one with NaN or infinite entries, labels that are no map of the image's size or no class.

    Example::

        train_pipeline = [
            dict(
                type='CheckedLoading',
                transforms=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
                num_classes=19),
            dict(type='PackSegInputs'),
        ]
    """

    def __init__(self, transforms: List[dict], num_classes: Optional[int] = None, ignore_index: int = 255) -> None:
        check(isinstance(transforms, (list, tuple)), 'transforms', transforms, 'a list of transforms')
        if num_classes is not None:
            check_integer('num_classes', num_classes, minimum=1)
        check_ignore_index(ignore_index)
        self.load = Compose(transforms)
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> Optional[dict]:
        """Return what the transforms return."""
        image, labels = results.get('img_path'), results.get('seg_map_path')
        files = f'image {image!r}' + (f' or its label map {labels!r}' if labels is not None else '')
        try:
            results = self.load(results)
        except Exception as error:  # decoders raise what they like, and most do not know the file
            raise ValueError(
                f'Cannot load {files}, replace the file or take it off the data set: {type(error).__name__}: {error}'
            ) from error
        if results is None:
            return None
        pixels = results.get('img')
        if pixels is not None:
            self._check(pixels.size > 0, f'image {image!r}', f'is empty, of shape {pixels.shape}')
            is_finite = not np.issubdtype(pixels.dtype, np.floating) or np.isfinite(pixels).all()
            self._check(is_finite, f'image {image!r}', 'has NaN or infinite entries')
        if results.get('gt_seg_map') is not None:
            self._check_depth(f'label map {labels!r}', labels)
            self._check_map(f'label map {labels!r}', results['gt_seg_map'], pixels)
        if results.get('gt_label') is not None:
            self._check_range(f'image {image!r}', np.atleast_1d(results['gt_label']))
        return results

    def _check_map(self, name: str, labels: np.ndarray, pixels: Optional[np.ndarray]) -> None:
        size = labels.shape if pixels is None else pixels.shape[:2]
        self._check(
            labels.ndim == 2 and labels.shape == size,
            name,
            f'is of shape {labels.shape}, where its image is of {size}; it should hold one class index per pixel',
        )
        self._check_range(name, labels[labels != self.ignore_index], f', and {self.ignore_index} is ignored')

    def _check_depth(self, name: str, path: Optional[str]) -> None:
        """Raise a ValueError where mmseg's LoadAnnotations, which keeps the lowest 8 bits, would change labels."""
        with suppress(OSError), Image.open(path or '') as file:  # it may lie elsewhere than in a folder
            if file.mode.startswith('I'):
                largest = int(np.max(file))
                self._check(largest < 256, name, f'has labels up to {largest}, and mmseg reads labels of 8 bits')

    def _check_range(self, name: str, labels: np.ndarray, besides: str = '') -> None:
        if self.num_classes is None:
            return
        wrong = labels[(labels < 0) | (labels >= self.num_classes)]
        values = ', '.join(map(str, np.unique(wrong)[:8]))
        self._check(
            wrong.size == 0,
            name,
            f'has labels that are no class: {values} ({wrong.size} of {labels.size}); '
            f'{self.num_classes} classes have 0 to {self.num_classes - 1}{besides}: mend the labels, or num_classes, '
            'reduce_zero_label or ignore_index',
        )

    @staticmethod
    def _check(ok: bool, name: str, complaint: str) -> None:
        if not ok:
            raise ValueError(f'The {name} {complaint}')

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.load.transforms}, num_classes={self.num_classes})'
