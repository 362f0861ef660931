"""Labeled and unlabeled images in folders and in memory, and semi-supervised data sets of them."""

from pathlib import Path

import torch
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement

from sar_mm.registry import DATASETS


@DATASETS.register_module('SemiTestFiles', force=True)
class Files(BaseDataset):
    """Images of a folder; the label is the first digit of the name."""

    def load_data_list(self):
        paths = sorted(Path(self.data_prefix['img_path']).iterdir())
        return [dict(img_path=str(path), gt_label=int(path.stem[0]) % 2) for path in paths]


class Memory:
    """Images that are no files."""

    def __init__(self, labels=(0, 1, 0), data_root=None, classes=('a', 'b'), pipeline=lambda index: dict(inputs=index)):
        self.labels, self.pipeline, self.data_root = labels, pipeline, data_root
        self.metainfo = dict() if classes is None else dict(classes=classes)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.pipeline(index)


def pack(results):
    image = torch.from_numpy(results['img']).permute(2, 0, 1)
    return dict(inputs=image, data_samples=BaseDataElement(path=results['img_path']))


def negate(results):
    return dict(results, img=255 - results['img'])


def broken(results):
    raise KeyError('gt_bboxes')


LOAD = dict(type='mmcv.LoadImageFromFile')
BRANCHES = dict(type='MultiBranch', weak=[pack], strong=[negate, pack])
CLASSES = dict(classes=('even', 'odd'))


def files(folder, name, pipeline, **options):
    options.update(data_root=str(folder), data_prefix=dict(img_path=name), pipeline=list(pipeline))
    return dict(type='SemiTestFiles', metainfo=CLASSES, serialize_data=False, **options)


def config(folder, labeled=(LOAD, pack), unlabeled=(LOAD, BRANCHES), **options):
    parts = dict(
        labeled=files(folder, 'labeled', labeled, **options),
        unlabeled=files(folder, 'unlabeled', unlabeled, **options),
    )
    return dict(type='sar_mm.SemiSupervisedDataset', **parts, **options)


def build(folder, max_unreadable=100, **options):
    return DATASETS.build(dict(config(folder, **options), max_unreadable=max_unreadable))


def value(packed):
    return packed['inputs'].unique().item()


def damage(folder, *names, content=b'text'):
    for name in names:
        (folder / 'unlabeled' / f'{name}.png').write_bytes(content)
