import logging
import os.path as osp
from typing import Any, Dict, Hashable, Optional, Set, Tuple, Union

import mmcv
from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import force_full_init
from mmengine.logging import print_log
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.structures import BaseDataElement

from ..checks import UsageError, check, check_flag, check_integer
from ..registry import DATASETS
from .views import image_sources, underlying

LOADING_ERRORS = (AssertionError, FileNotFoundError, NotADirectoryError, RuntimeError, ValueError)


@DATASETS.register_module()
class SemiSupervisedDataset:
    """Labeled and unlabeled images in one data set: indices below ``num_labeled`` are labeled, the others not.

    A labeled image is a ``BaseDataElement(labeled=...)`` around what its pipeline returns. The pipeline of unlabeled
    images ends with :class:`MultiBranch`, with a branch ``weak`` and one or several whose names start with ``strong``;
    an unlabeled image is a ``BaseDataElement(weak=..., strong=...)``. Both of mmengine's collate functions return a
    list of these unchanged, though a batch holds both kinds; :class:`LabeledUnlabeledSampler` mixes them.

    An unlabeled image whose file cannot be read or decoded is skipped with a warning, and the next unlabeled one is
    given instead. All other errors of a pipeline are raised, also those of unreadable labeled images.

    ``metainfo`` and :func:`class_counts` are those of the labeled images.

    Args:
        labeled: A data set or its config.
        unlabeled: A data set or its config; labels that it has are not used. A config without a type holds what
            differs from that of ``labeled``, into which it is merged as ``_base_`` configs are.
        max_unreadable: Unlabeled images that may be unreadable, per process.
        labeled_among_unlabeled: Whether the parts may share images: FixMatch's unlabeled images are the whole
            training set, labeled ones included.
        lazy_init: Load on the first use, or when :meth:`full_init` is called, instead of in the constructor.

    Raises:
        ValueError: A part cannot be loaded or is empty, the parts share an image (the same path, or the same index in
            two data sets of one type, ``data_root`` and length), or both name classes and these differ. On first use:
            a pipeline does not end as described above.
        RuntimeError: On use, more than ``max_unreadable`` unlabeled images, or all of them, cannot be read.

    Example::

        train_dataloader = dict(
            batch_size=8,
            sampler=dict(type='LabeledUnlabeledSampler', labeled=4, unlabeled=4),
            dataset=dict(
                type='SemiSupervisedDataset',
                labeled=dict(type='CityscapesDataset', ann_file='labeled.txt', pipeline=labeled_pipeline, ...),
                unlabeled=dict(ann_file='unlabeled.txt', pipeline=unlabeled_pipeline)))
    """

    def __init__(
        self,
        labeled: Union[dict, Any],
        unlabeled: Union[dict, Any],
        max_unreadable: int = 100,
        labeled_among_unlabeled: bool = False,
        lazy_init: bool = False,
    ) -> None:
        check_integer('max_unreadable', max_unreadable, 0)
        check_flag('labeled_among_unlabeled', labeled_among_unlabeled)
        if isinstance(unlabeled, dict) and 'type' not in unlabeled:
            valid = 'a data set, or its config with a type: labeled is no config from which it could inherit'
            check(isinstance(labeled, dict), 'unlabeled', unlabeled, valid)
            unlabeled = _inherit(labeled, unlabeled)
        self.max_unreadable = max_unreadable
        self.labeled_among_unlabeled = labeled_among_unlabeled
        self.labeled = _load('labeled', labeled, lazy_init)
        self.unlabeled = _load('unlabeled', unlabeled, lazy_init)
        self._unreadable: Set[str] = set()
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """A copy of the metainfo of the labeled images."""
        return dict(self.labeled.metainfo)

    def full_init(self) -> None:
        """Load both parts and check that they fit together."""
        if self._fully_initialized:
            return
        classes = []
        for name in ('labeled', 'unlabeled'):
            dataset = _load(name, getattr(self, name), lazy_init=False)
            if len(dataset) == 0:
                raise UsageError(f'SemiSupervisedDataset has no {name} images: {_source(dataset)} is empty')
            classes.append(getattr(dataset, 'metainfo', {}).get('classes'))
        if None not in classes and list(classes[0]) != list(classes[1]):
            raise UsageError(
                f'the labeled images have the classes {list(classes[0])}, but the unlabeled ones {list(classes[1])}'
            )
        if not self.labeled_among_unlabeled:
            _check_overlap(self.labeled, self.unlabeled)
        self._fully_initialized = True

    @property
    @force_full_init
    def num_labeled(self) -> int:
        """Number of labeled images."""
        return len(self.labeled)

    @property
    @force_full_init
    def num_unlabeled(self) -> int:
        """Number of unlabeled images."""
        return len(self.unlabeled)

    def __len__(self) -> int:
        return self.num_labeled + self.num_unlabeled

    def get_data_info(self, idx: int) -> dict:
        """Return the annotation of an image."""
        idx = range(len(self))[idx]
        if idx < self.num_labeled:
            return self.labeled.get_data_info(idx)
        return self.unlabeled.get_data_info(idx - self.num_labeled)

    def __getitem__(self, idx: int) -> BaseDataElement:
        idx = range(len(self))[idx]
        if idx >= self.num_labeled:
            return self._next_readable(idx - self.num_labeled)
        packed = self.labeled[idx]
        if 'inputs' not in packed:
            raise ValueError(f'the pipeline of labeled images has to end with packed inputs, but gives {list(packed)}')
        return BaseDataElement(labeled=packed)

    def _next_readable(self, first: int) -> BaseDataElement:
        """Return the views of the unlabeled image ``first`` or, if it cannot be read, of the next one that can."""
        cause = None
        for step in range(self.num_unlabeled):
            index = (first + step) % self.num_unlabeled
            try:
                views = self.unlabeled[index]
            except Exception as error:  # any, as any decoder may have failed
                path, reason = self._reading_error(index)
                if reason is None:
                    raise
                self._note_unreadable(path, reason, error)
                cause = error
            else:
                _check_views(views)
                return BaseDataElement(**views)
        raise RuntimeError(f'none of the {self.num_unlabeled} unlabeled images can be read') from cause

    def _reading_error(self, index: int) -> Tuple[Optional[str], Optional[str]]:
        """Return the file of an unlabeled image, and why it cannot be read, or None if it can."""
        info: dict = getattr(self.unlabeled, 'get_data_info', lambda index: {})(index)
        path = info.get('img_path')
        if path is None:
            return path, None
        steps = getattr(getattr(underlying(self.unlabeled), 'pipeline', None), 'transforms', ())
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
                f'{number} unlabeled images cannot be read, more than max_unreadable={self.max_unreadable}; '
                f'the last is {path}: {reason}'
            ) from error
        message = f'unlabeled image {path} is skipped ({reason}); {number} unreadable so far in this process'
        print_log(message, logger='current', level=logging.WARNING)


def _inherit(labeled: dict, unlabeled: dict) -> dict:
    """Return the config of labeled images with other options, merged as ``_base_`` configs are."""
    cfg = Config(dict(dataset=labeled))  # below a key: mmengine reserves a few names at the top of a config
    try:
        cfg.merge_from_dict(dict(dataset=unlabeled))
    except (KeyError, TypeError) as error:  # a dict in place of a list or a number
        raise UsageError(f'unlabeled={unlabeled!r} does not fit the config of labeled: {error}') from error
    return cfg.to_dict()['dataset']


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
        raise UsageError(
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
    names: Dict[Hashable, str] = {}
    for root, index in image_sources(dataset):
        place = getattr(root, 'data_root', None)
        source = (id(root),) if place is None else (type(root), len(root), osp.abspath(place))
        names[(*source, index)] = f'image {index} of {type(root).__name__}'
    return names


def _check_overlap(labeled: Any, unlabeled: Any) -> None:
    names = _identities(labeled)
    shared = names.keys() & _identities(unlabeled).keys()
    if shared:
        example = min(names[key] for key in shared)
        raise UsageError(
            f'{len(shared)} of the {len(labeled)} labeled images are unlabeled, too: {example} for one; if that is '
            'intended, as in FixMatch, set labeled_among_unlabeled=True'
        )


def _check_views(views: Any) -> None:
    """Raise a ValueError unless these are the views of :class:`MultiBranch` with the branches needed."""
    if not isinstance(views, dict) or 'inputs' in views:
        found = list(views) if isinstance(views, dict) else type(views).__name__
        raise ValueError(f'the pipeline of unlabeled images has to end with MultiBranch, but gives {found}')
    names = list(views)
    if 'weak' not in names or not any(name.startswith('strong') for name in names):
        raise ValueError(
            f'MultiBranch of unlabeled images needs a branch "weak" and one that starts with "strong", but has {names}'
        )
    for name in names:
        is_free = name != 'labeled' and not hasattr(BaseDataElement, name) and not name.startswith('_')
        valid = 'none that BaseDataElement or labeled images use'
        check(is_free, 'name of a branch of unlabeled images', name, valid)
