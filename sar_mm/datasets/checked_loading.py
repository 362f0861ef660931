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
    """Loads an image and its labels with the toolbox's own transforms, and names the file if something is wrong.

    It replaces them at the start of the pipeline. A label that is no class is an error here; later, on a GPU, it would
    end the process without naming the data.

    Args:
        transforms: The transforms that load.
        num_classes: K; labels have to be in [0, K). None: their values are not checked.
        ignore_index: Another label that pixels may have.

    Raises:
        ValueError: In the constructor, a bad argument. When loading, a file that cannot be read, an empty image, one
            with NaN or infinite entries, labels that are no map of the image's size, or are no class.

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
        image, label_map = f'image {results.get("img_path")!r}', f'label map {results.get("seg_map_path")!r}'
        files = image if results.get('seg_map_path') is None else f'{image} or its {label_map}'
        try:
            results = self.load(results)
        except Exception as error:  # decoders raise errors of any type, and most do not name the file
            raise ValueError(
                f'Cannot load {files}, replace the file or take it off the data set: {type(error).__name__}: {error}'
            ) from error
        if results is None:
            return None
        pixels, labels = results.get('img'), results.get('gt_seg_map')
        if pixels is not None:
            _require(pixels.size > 0, image, f'is empty, of shape {pixels.shape}')
            is_finite = not np.issubdtype(pixels.dtype, np.floating) or np.isfinite(pixels).all()
            _require(is_finite, image, 'has NaN or infinite entries')
        if labels is not None:
            _check_depth(label_map, results.get('seg_map_path'))
            size = labels.shape if pixels is None else pixels.shape[:2]
            shapes = f'is of shape {labels.shape}, where its image is of {size}'
            is_map = labels.ndim == 2 and labels.shape == size
            _require(is_map, label_map, f'{shapes}; it should hold one class index per pixel')
            self._check_range(label_map, labels[labels != self.ignore_index], f', and {self.ignore_index} is ignored')
        if results.get('gt_label') is not None:
            self._check_range(image, np.atleast_1d(results['gt_label']))
        return results

    def _check_range(self, name: str, labels: np.ndarray, besides: str = '') -> None:
        if self.num_classes is None:
            return
        wrong = labels[(labels < 0) | (labels >= self.num_classes)]
        values = ', '.join(map(str, np.unique(wrong)[:8]))
        _require(
            wrong.size == 0,
            name,
            f'has labels that are no class: {values} ({wrong.size} of {labels.size}); '
            f'{self.num_classes} classes have 0 to {self.num_classes - 1}{besides}: correct the labels, or '
            'num_classes, reduce_zero_label or ignore_index',
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.load.transforms}, num_classes={self.num_classes})'


def _check_depth(name: str, path: Optional[str]) -> None:
    """Raise a ValueError if mmseg's LoadAnnotations, which keeps the lowest 8 bits, would change labels."""
    with suppress(OSError), Image.open(path or '') as file:  # it may not be on this file system
        if file.mode.startswith('I'):
            largest = int(np.asarray(file).max())
            _require(largest < 256, name, f'has labels up to {largest}, and mmseg reads labels of 8 bits')


def _require(ok: bool, name: str, complaint: str) -> None:
    if not ok:
        raise ValueError(f'The {name} {complaint}')
