"""Pipelines that need the label maps of unlabeled images."""

from typing import Any, Iterator, Optional

from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose

from ..checks import UsageError
from ..datasets.views import inner_datasets, leaf_datasets

# Steps of mmseg that load the label map of any image, and those that fail where none is loaded.
_LOADERS = ('LoadAnnotations', 'LoadBiomedicalAnnotation')
_USERS = ('GenerateEdge', 'BioMedical3DRandomCrop', 'BioMedical3DRandomFlip')


def check_unlabeled(dataset: Any, place: str) -> None:
    """Raise a UsageError where a step of a pipeline needs the label maps of unlabeled images that have none.

    Args:
        dataset: A data set; also the data sets and transforms that others hold are checked.
        place: Where it is in the config.
    """
    if not hasattr(dataset, 'unlabeled'):
        for inner, inner_place in inner_datasets(dataset, place):
            check_unlabeled(inner, inner_place)
        return
    for leaf, leaf_place in leaf_datasets(dataset, place, part='unlabeled'):
        if not hasattr(leaf, 'get_data_info') or len(leaf) == 0:
            continue
        has_map = leaf.get_data_info(0).get('seg_map_path') is not None
        is_loaded = False
        for step in _steps(getattr(leaf, 'pipeline', None)):
            names = {base.__name__ for base in type(step).__mro__}
            loads = not names.isdisjoint(_LOADERS) and getattr(step, 'with_seg', True)
            remedy = _remedy(step, names, loads, has_map, is_loaded)
            if remedy is not None:
                raise UsageError(
                    f'{leaf_place}.pipeline: {type(step).__name__} needs the label maps of unlabeled images, which '
                    f'{"are not loaded" if has_map else "do not exist"}: {remedy}'
                )
            is_loaded = is_loaded or bool(loads)


def _remedy(step: Any, names: set, loads: bool, has_map: bool, is_loaded: bool) -> Optional[str]:
    if loads and not has_map:
        return 'leave the step out, or name their folder in data_prefix.seg_map_path if they have labels'
    if 'RandomCrop' in names and getattr(step, 'cat_max_ratio', 1.0) < 1 and not is_loaded:
        return f'leave out cat_max_ratio={step.cat_max_ratio}, by which it looks for a crop of several classes'
    if not names.isdisjoint(_USERS) and not is_loaded:
        return 'leave the step out'
    return None


def _steps(value: Any) -> Iterator[Any]:
    """Yield the steps of a pipeline in the order of use, each before those that it holds."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _steps(each)
    elif isinstance(value, dict):
        yield from _steps(list(value.values()))
    elif isinstance(value, (BaseTransform, Compose)):
        yield value
        yield from _steps(list(vars(value).values()))
