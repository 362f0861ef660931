from copy import deepcopy
from typing import Any, Optional

from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose

from ..checks import check
from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiBranch(BaseTransform):
    """The last step of a pipeline: returns several views of one image by name, each with its own transforms.

    Every branch gets a deep copy of the input. Put the geometry before it, and the views agree pixel by pixel. If one
    branch returns None, so does this transform, and the data set takes another image.

    Args:
        branches: A list of transforms per name of a branch.

    Raises:
        ValueError: There is no branch, one is no list, or its name is no identifier.

    Example::

        unlabeled_pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(512, 512)),
            dict(type='RandomFlip', prob=0.5),
            dict(
                type='MultiBranch',
                weak=[dict(type='PackSegInputs')],
                strong=[dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]),
        ]
    """

    def __init__(self, **branches: Any) -> None:
        check(len(branches) > 0, 'branches', branches, 'at least one list of transforms')
        for name, transforms in branches.items():
            check(name.isidentifier(), 'name of a branch', name, 'an identifier')
            check(isinstance(transforms, (list, tuple)), name, transforms, 'a list of transforms')
        self.branches = {name: Compose(transforms) for name, transforms in branches.items()}

    def transform(self, results: dict) -> Optional[dict]:
        views = {}
        for name, branch in self.branches.items():
            views[name] = branch(deepcopy(results))
            if views[name] is None:
                return None
        return views

    def __repr__(self) -> str:
        branches = ', '.join(f'{name}={branch.transforms}' for name, branch in self.branches.items())
        return f'{type(self).__name__}({branches})'
