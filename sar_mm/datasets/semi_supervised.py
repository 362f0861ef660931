import logging
import os.path as osp
from typing import Any, Dict, Hashable, Optional, Set, Tuple, Union

import mmcv
from mmengine import fileio
from mmengine.dataset import force_full_init
from mmengine.logging import print_log
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.structures import BaseDataElement

from ..checks import check, check_flag, check_integer
from ..registry import DATASETS
from .views import underlying

LOADING_ERRORS = (AssertionError, FileNotFoundError, NotADirectoryError, RuntimeError, ValueError)


@DATASETS.register_module()
class SemiSupervisedDataset:
    """Labelled and unlabelled images in one data set: indices below ``num_labelled`` are labelled, the others not.

    A labelled image is a ``BaseDataElement(labelled=...)`` around what its pipeline gives. The pipeline of unlabelled
    images ends with :class:`MultiBranch`, with a branch ``weak`` and one or several whose names start with ``strong``;
    an unlabelled image is a ``BaseDataElement(weak=..., strong=...)``. Both of mmengine's collate functions leave a
    list of these as it is, though one batch holds both kinds; ``LabelledUnlabelledSampler`` mixes them.

    An unlabelled image whose file cannot be read or decoded is skipped with a warning, and the next unlabelled one is
    given in its place. All other errors of a pipeline are raised, as those of unreadable labelled images.

    ``metainfo`` is that of the labelled images, and their classes are those that :func:`class_counts` counts.

    Args:
        labelled: A data set or its config.
        unlabelled: A data set or its config; its labels, if it has any, are not looked at.
        max_unreadable: Unlabelled images that may be unreadable, per process.
        labelled_among_unlabelled: Whether the parts may share images: FixMatch's unlabelled images are all of the
            training set, labelled ones too.
        lazy_init: Whether to put off loading until the data set is used, or :meth:`full_init` is called.

    Raises:
        ValueError: A part cannot be loaded or is empty, the parts share an image (the same path, or the same place in
            two data sets of one kind, ``data_root`` and length), or both name classes and these differ. On first use:
            the pipeline of unlabelled images does not end as it has to.
        RuntimeError: On use, more than ``max_unreadable`` unlabelled images, or all of them, cannot be read.

    Example::

        train_dataloader = dict(
            batch_size=8,
            sampler=dict(type='LabelledUnlabelledSampler', labelled=4, unlabelled=4),
            dataset=dict(
                type='SemiSupervisedDataset',
                labelled=dict(type='CityscapesDataset', ann_file='labelled.txt', pipeline=labelled_pipeline, ...),
                unlabelled=dict(type='CityscapesDataset', ann_file='unlabelled.txt', pipeline=unlabelled_pipeline, ...)))
    """  # noqa: E501

    def __init__(
        self,
        labelled: Union[dict, Any],
        unlabelled: Union[dict, Any],
        max_unreadable: int = 100,
        labelled_among_unlabelled: bool = False,
        lazy_init: bool = False,
    ) -> None:
        check_integer('max_unreadable', max_unreadable, 0)
        check_flag('labelled_among_unlabelled', labelled_among_unlabelled)
        self.max_unreadable = max_unreadable
        self.labelled_among_unlabelled = labelled_among_unlabelled
        self.labelled = _load('labelled', labelled, lazy_init)
        self.unlabelled = _load('unlabelled', unlabelled, lazy_init)
        self._unreadable: Set[str] = set()
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """A copy of the metainfo of the labelled images."""
        return dict(self.labelled.metainfo)

    def full_init(self) -> None:
        """Load both parts and check that they fit together."""
        if self._fully_initialized:
            return
        for name in ('labelled', 'unlabelled'):
            dataset = _load(name, getattr(self, name), lazy_init=False)
            if len(dataset) == 0:
                raise ValueError(f'the {name} images of SemiSupervisedDataset are none: {_source(dataset)} is empty')
        classes = [_classes(dataset) for dataset in (self.labelled, self.unlabelled)]
        if None not in classes and classes[0] != classes[1]:
            raise ValueError(f'the labelled images have the classes {classes[0]}, but the unlabelled ones {classes[1]}')
        if not self.labelled_among_unlabelled:
            _check_overlap(self.labelled, self.unlabelled)
        self._fully_initialized = True

    @property
    @force_full_init
    def num_labelled(self) -> int:
        """Number of labelled images."""
        return len(self.labelled)

    @property
    @force_full_init
    def num_unlabelled(self) -> int:
        """Number of unlabelled images."""
        return len(self.unlabelled)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return the annotation of an image."""
        idx = range(len(self))[idx]
        if idx < self.num_labelled:
            return self.labelled.get_data_info(idx)
        return self.unlabelled.get_data_info(idx - self.num_labelled)

    @force_full_init
    def __len__(self) -> int:
        return len(self.labelled) + len(self.unlabelled)

    @force_full_init
    def __getitem__(self, idx: int) -> BaseDataElement:
        idx = range(len(self))[idx]
        if idx >= self.num_labelled:
            return self._unlabelled(idx - self.num_labelled)
        packed = self.labelled[idx]
        if 'inputs' not in packed:
            raise ValueError(f'the pipeline of labelled images has to end with packed inputs, but gives {list(packed)}')
        return BaseDataElement(labelled=packed)

    def _unlabelled(self, first: int) -> BaseDataElement:
        cause = None
        for step in range(len(self.unlabelled)):
            index = (first + step) % len(self.unlabelled)
            try:
                views = self.unlabelled[index]
            except Exception as error:  # any, as any decoder may have failed
                path, reason = self._reading_error(index)
                if reason is None:
                    raise
                self._note_unreadable(path, reason, error)
                cause = error
            else:
                _check_views(views)
                return BaseDataElement(**views)
        raise RuntimeError(f'none of the {len(self.unlabelled)} unlabelled images can be read') from cause

    def _reading_error(self, index: int) -> Tuple[Optional[str], Optional[str]]:
        """Return the file of an unlabelled image, and what is wrong with it, or None where nothing is."""
        info = getattr(self.unlabelled, 'get_data_info', lambda index: {})(index)
        path = info.get('img_path')
        if path is None:
            return path, None
        steps = getattr(getattr(underlying(self.unlabelled)[0], 'pipeline', None), 'transforms', ())
        loader = next((step for step in steps if hasattr(step, 'imdecode_backend')), None)
        try:
            content = fileio.get(path, backend_args=getattr(loader, 'backend_args', None))
            image = mmcv.imfrombytes(content, backend=getattr(loader, 'imdecode_backend', None))
        except Exception as error:
            return path, f'{type(error).__name__}: {error}'
        return path, 'it is no image that can be decoded' if image is None else None

    def _note_unreadable(self, path: str, reason: str, error: Exception) -> None:
        if path in self._unreadable:
            return
        self._unreadable.add(path)
        number = len(self._unreadable)
        if number > self.max_unreadable:
            raise RuntimeError(
                f'{number} unlabelled images cannot be read, more than max_unreadable={self.max_unreadable}; '
                f'the last is {path}: {reason}'
            ) from error
        message = f'unlabelled image {path} is skipped ({reason}); {number} unreadable so far in this process'
        print_log(message, logger='current', level=logging.WARNING)


def _load(name: str, dataset: Any, lazy_init: bool) -> Any:
    """Build and, unless lazy, load a data set; its errors say which part it is and where that should lie."""
    try:
        if isinstance(dataset, dict):
            dataset = MMENGINE_DATASETS.build(dataset)
        if not lazy_init and hasattr(dataset, 'full_init'):
            dataset.full_init()
        return dataset
    except LOADING_ERRORS as error:
        # All that mmengine says about an empty folder comes from numpy.
        is_empty = 'need at least one array to concatenate' in str(error)
        reason = 'there is no such image' if is_empty else error
        source = _source(dataset)
        raise ValueError(
            f'the {name} images of SemiSupervisedDataset cannot be loaded from {source}: {reason}'
        ) from error


def _source(dataset: Any) -> str:
    """Describe where a data set or its config finds its images."""

    def get(key: str) -> Any:
        return dataset.get(key) if isinstance(dataset, dict) else getattr(dataset, key, None)

    if get('data_prefix') is None and get('data_root') is None and get('dataset') is not None:
        return _source(get('dataset'))
    prefix, root = get('data_prefix'), get('data_root') or ''
    folder = prefix.get('img_path', '') if isinstance(prefix, dict) else prefix or ''
    if isinstance(dataset, dict):  # a data set has joined them
        folder = osp.join(root, folder)
    lists = f' with ann_file={get("ann_file")!r}' if get('ann_file') else ''
    kind = dataset.get('type') if isinstance(dataset, dict) else type(dataset)
    return (folder or root or f'{getattr(kind, "__name__", kind)}') + lists


def _classes(dataset: Any) -> Optional[list]:
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    return None if classes is None else list(classes)


def _identities(dataset: Any) -> Dict[Hashable, str]:
    """Return what tells the images of a data set from others, and how to call them; empty if nothing does."""
    infos = (dataset.get_data_info(index) for index in range(len(dataset))) if hasattr(dataset, 'get_data_info') else ()
    paths = {}
    for info in infos:
        if 'img_path' not in info:
            break
        paths[osp.abspath(info['img_path'])] = info['img_path']
    else:
        return paths
    root, indices = underlying(dataset)
    place = getattr(root, 'data_root', None)
    source = (id(root),) if place is None else (type(root), len(root), osp.abspath(place))
    return {(*source, index): f'image {index} of {type(root).__name__}' for index in indices.tolist()}


def _check_overlap(labelled: Any, unlabelled: Any) -> None:
    names = _identities(labelled)
    shared = names.keys() & _identities(unlabelled).keys()
    if shared:
        example = min(names[key] for key in shared)
        raise ValueError(
            f'{len(shared)} of the {len(labelled)} labelled images are unlabelled, too: {example} for one; if that is '
            'meant, as in FixMatch, set labelled_among_unlabelled=True'
        )


def _check_views(views: Any) -> None:
    """Raise a ValueError unless an unlabelled image is what :class:`MultiBranch` with the right branches gives."""
    if not isinstance(views, dict) or 'inputs' in views:
        found = list(views) if isinstance(views, dict) else type(views).__name__
        raise ValueError(f'the pipeline of unlabelled images has to end with MultiBranch, but gives {found}')
    names = list(views)
    if 'weak' not in names or not any(name.startswith('strong') for name in names):
        raise ValueError(
            f'MultiBranch of unlabelled images has to have a branch "weak" and one that starts with "strong", but has '
            f'{names}'
        )
    for name in names:
        is_free = name != 'labelled' and not hasattr(BaseDataElement, name) and not name.startswith('_')
        check(
            is_free, 'name of a branch of unlabelled images', name, 'none that BaseDataElement or labelled images use'
        )
