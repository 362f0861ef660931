"""Data sets in memory, and configs of them and of what goes around them."""

import numpy as np
from mmengine.dataset import BaseDataset

from sar_mm.datasets import LabeledSubset, LongTailedDataset, NoisyLabels
from sar_mm.registry import DATASETS


def shuffled(sizes, seed=0):
    """Labels of as many images of each class, in random order."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).permutation(labels).tolist()


LABELS = shuffled([10, 6, 4])


def pack(info):
    return dict(inputs=info['number'], label=info['gt_label'])


def every_third(info):
    return pack(info) if info['number'] % 3 == 0 else None


@DATASETS.register_module('InMemory', force=True)
class Images(BaseDataset):
    """Images that are their own number; with a folder, they have paths."""

    METAINFO = dict(classes=('ant', 'bee', 'cat'), palette=[1])

    def __init__(self, labels=LABELS, folder=None, pipeline=(pack,), **kwargs):
        self.labels, self.folder = labels, folder
        # Serializing collects garbage, which is slow.
        super().__init__(pipeline=list(pipeline), serialize_data=False, **kwargs)

    def load_data_list(self):
        paths = [dict() if self.folder is None else dict(img_path=f'{self.folder}/{i}.png') for i in range(1000)]
        return [dict(path, number=i, gt_label=label) for i, (path, label) in enumerate(zip(paths, self.labels))]

    def get_cat_ids(self, idx):
        return np.ravel(self.get_data_info(idx)['gt_label']).tolist()


class LabelMaps(BaseDataset):
    """Images without labels of their own, as in segmentation."""

    METAINFO = dict(classes=('road', 'sky'))

    def __init__(self):
        super().__init__(serialize_data=False)

    def load_data_list(self):
        return [dict(img_path=f'{index}.jpg', seg_map_path=f'{index}.png') for index in range(6)]


def images(**options):
    return dict(type='InMemory', **options)


def noisy(dataset, rate=0.5, kind='pairwise', **options):
    return dict(type='sar_mm.NoisyLabels', dataset=dataset, rate=rate, kind=kind, **options)


def long_tailed(dataset, factor=4):
    return dict(type='sar_mm.LongTailedDataset', imbalance_factor=factor, dataset=dataset)


def part(name, dataset, per_class=4):
    return dict(type='sar_mm.LabeledSubset', part=name, per_class=per_class, dataset=dataset)


def semi_supervised(labeled, unlabeled):
    return dict(type='sar_mm.SemiSupervisedDataset', labeled=labeled, unlabeled=unlabeled)


def repeated(dataset, times=3):
    return dict(type='RepeatDataset', times=times, dataset=dataset)


def balanced(dataset, threshold=0.26):
    """Images of a class of frequency f come ceil(sqrt(threshold / f)) times."""
    return dict(type='ClassBalancedDataset', oversample_thr=threshold, dataset=dataset)


def joined(*datasets):
    return dict(type='ConcatDataset', datasets=list(datasets), ignore_keys='class_counts')


# Views of a data set by their names.
VIEWS = dict(
    long_tailed=lambda data, **options: LongTailedDataset(data, 4, **options),
    labeled=lambda data, **options: LabeledSubset(data, 'labeled', per_class=2, **options),
    unlabeled=lambda data, **options: LabeledSubset(data, 'unlabeled', per_class=2, **options),
    noisy=lambda data, **options: NoisyLabels(data, 0.5, **options),
)
