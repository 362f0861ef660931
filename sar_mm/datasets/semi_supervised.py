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
from .views import image_sources, underlying

LOADING_ERRORS = (AssertionError, FileNotFoundError, NotADirectoryError, RuntimeError, ValueError)


@DATASETS.register_module()
class SemiSupervisedDataset:
    """Labelled and unlabelled images in one data set: indices below ``num_labelled`` are labelled, the others not.

    A labelled image is a ``BaseDataElement(labelled=...)`` around what its pipeline returns. The pipeline of unlabelled
    images ends with :class:`MultiBranch`, with a branch ``weak`` and one or several whose names start with ``strong``;
    an unlabelled image is a ``BaseDataElement(weak=..., strong=...)``. Both of mmengine's collate functions return a
    list of these unchanged, though a batch holds both kinds; :class:`LabelledUnlabelledSampler` mixes them.

    An unlabelled image whose file cannot be read or decoded is skipped with a warning, and the next unlabelled one is
    given instead. All other errors of a pipeline are raised, also those of unreadable labelled images.

    ``metainfo`` and :func:`class_counts` are those of the labelled images.

    Args:
        labelled: A data set or its config.
        unlabelled: A data set or its config; labels that it has are not used.
        max_unreadable: Unlabelled images that may be unreadable, per process.
        labelled_among_unlabelled: Whether the parts may share images: FixMatch's unlabelled images are the whole
            training set, labelled ones included.
        lazy_init: Load on the first use, or when :meth:`full_init` is called, instead of in the constructor.

    Raises:
        ValueError: A part cannot be loaded or is empty, the parts share an image (the same path, or the same index in
            two data sets of one type, ``data_root`` and length), or both name classes and these differ. On first use:
            a pipeline does not end as described above.
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
        classes = []
        for name in ('labelled', 'unlabelled'):
            dataset = _load(name, getattr(self, name), lazy_init=False)
            if len(dataset) == 0:
                raise ValueError(f'SemiSupervisedDataset has no {name} images: {_source(dataset)} is empty')
            classes.append(getattr(dataset, 'metainfo', {}).get('classes'))
        if None not in classes and list(classes[0]) != list(classes[1]):
            raise ValueError(
                f'the labelled images have the classes {list(classes[0])}, but the unlabelled ones {list(classes[1])}'
            )
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

    def __len__(self) -> int:
        return self.num_labelled + self.num_unlabelled

    def get_data_info(self, idx: int) -> dict:
        """Return the annotation of an image."""
        idx = range(len(self))[idx]
        if idx < self.num_labelled:
            return self.labelled.get_data_info(idx)
        return self.unlabelled.get_data_info(idx - self.num_labelled)

    def __getitem__(self, idx: int) -> BaseDataElement:
        idx = range(len(self))[idx]
        if idx >= self.num_labelled:
            return self._next_readable(idx - self.num_labelled)
        packed = self.labelled[idx]
        if 'inputs' not in packed:
            raise ValueError(f'the pipeline of labelled images has to end with packed inputs, but gives {list(packed)}')
        return BaseDataElement(labelled=packed)

    def _next_readable(self, first: int) -> BaseDataElement:
        """Return the views of the unlabelled image ``first`` or, if it cannot be read, of the next one that can."""
        cause = None
        for step in range(self.num_unlabelled):
            index = (first + step) % self.num_unlabelled
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
        raise RuntimeError(f'none of the {self.num_unlabelled} unlabelled images can be read') from cause

    def _reading_error(self, index: int) -> Tuple[Optional[str], Optional[str]]:
        """Return the file of an unlabelled image, and why it cannot be read, or None if it can."""
        info = getattr(self.unlabelled, 'get_data_info', lambda index: {})(index)
        path = info.get('img_path')
        if path is None:
            return path, None
        steps = getattr(getattr(underlying(self.unlabelled), 'pipeline', None), 'transforms', ())
        loader = next((step for step in steps if hasattr(step, 'imdecode_backend')), None)
        try:
            content = fileio.get(path, backend_args=getattr(loader, 'backend_args', None))
            image = mmcv.imfrombytes(content, backend=getattr(loader, 'imdecode_backend', None))
        except Exception as error:
            return path, f'{type(error).__name__}: {error}'
        return path, 'it cannot be decoded' if image is None else None

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
    """Build and, unless lazy, load a data set; errors name the part and the place of its images."""
    try:
        if isinstance(dataset, dict):
            dataset = MMENGINE_DATASETS.build(dataset)
        if not lazy_init and hasattr(dataset, 'full_init'):
            dataset.full_init()
        return dataset
    except LOADING_ERRORS as error:
        # For an empty folder, mmengine passes on NumPy's message.
        is_empty = 'need at least one array to concatenate' in str(error)
        reason = 'there is no such image' if is_empty else error
        raise ValueError(
            f'the {name} images of SemiSupervisedDataset cannot be loaded from {_source(dataset)}: {reason}'
        ) from error


def _source(dataset: Any) -> str:
    """Describe where a data set or its config finds its images."""
    options = dataset if isinstance(dataset, dict) else dict(vars(dataset), type=type(dataset))
    prefix, root = options.get('data_prefix'), options.get('data_root') or ''
    if prefix is None and not root and options.get('dataset') is not None:
        return _source(options['dataset'])
    folder = prefix.get('img_path', '') if isinstance(prefix, dict) else prefix or ''
    if isinstance(dataset, dict):  # a data set has joined them
        folder = osp.join(root, folder)
    kind = options.get('type')
    lists = f' with ann_file={options["ann_file"]!r}' if options.get('ann_file') else ''
    return (folder or root or getattr(kind, '__name__', str(kind))) + lists


def _identities(dataset: Any) -> Dict[Hashable, str]:
    """Return what tells the images of a data set from others, and how messages call them.

    That is the path of an image or, where not all have one, its index in the data set that holds it.
    """
    infos = (dataset.get_data_info(index) for index in range(len(dataset))) if hasattr(dataset, 'get_data_info') else ()
    paths = [info.get('img_path') for info in infos]
    if paths and None not in paths:
        return {osp.abspath(path): path for path in paths}
    names = {}
    for root, index in image_sources(dataset):
        place = getattr(root, 'data_root', None)
        source = (id(root),) if place is None else (type(root), len(root), osp.abspath(place))
        names[(*source, index)] = f'image {index} of {type(root).__name__}'
    return names


def _check_overlap(labelled: Any, unlabelled: Any) -> None:
    names = _identities(labelled)
    shared = names.keys() & _identities(unlabelled).keys()
    if shared:
        example = min(names[key] for key in shared)
        raise ValueError(
            f'{len(shared)} of the {len(labelled)} labelled images are unlabelled, too: {example} for one; if that is '
            'intended, as in FixMatch, set labelled_among_unlabelled=True'
        )


def _check_views(views: Any) -> None:
    """Raise a ValueError unless these are the views of :class:`MultiBranch` with the branches needed."""
    if not isinstance(views, dict) or 'inputs' in views:
        found = list(views) if isinstance(views, dict) else type(views).__name__
        raise ValueError(f'the pipeline of unlabelled images has to end with MultiBranch, but gives {found}')
    names = list(views)
    if 'weak' not in names or not any(name.startswith('strong') for name in names):
        raise ValueError(
            f'MultiBranch of unlabelled images needs a branch "weak" and one that starts with "strong", but has {names}'
        )
    for name in names:
        is_free = name != 'labelled' and not hasattr(BaseDataElement, name) and not name.startswith('_')
        valid = 'none that BaseDataElement or labelled images use'
        check(is_free, 'name of a branch of unlabelled images', name, valid)
