import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.registry import DATASETS, DefaultScope

import sar_mm  # noqa: F401
from sar_mm.checks import UsageError
from sar_mm.datasets import LabeledSubset
from sar_mm.engine.unlabeled import check_unlabeled

pytest.importorskip('mmseg.datasets')

LOAD = dict(type='LoadImageFromFile')
LABELS = dict(type='LoadAnnotations')
CROP = dict(type='RandomCrop', crop_size=(8, 8), cat_max_ratio=0.75)
PLAIN_CROP = dict(type='RandomCrop', crop_size=(8, 8))
PACK = dict(type='PackSegInputs')
VIEWS = dict(type='MultiBranch', weak=[PACK], strong=[PACK])


class Semi:
    def __init__(self, unlabeled):
        self.unlabeled = unlabeled


@pytest.fixture
def make(tmp_path):
    """A data set of unlabeled images with this pipeline, with label maps or without."""
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f'{number}.png').touch()

    def make(*pipeline, labels=False):
        prefix = dict(img_path='images', **(dict(seg_map_path='labels') if labels else {}))
        with DefaultScope.overwrite_default_scope('mmseg'):
            return DATASETS.build(
                dict(
                    type='BaseSegDataset',
                    data_root=str(tmp_path),
                    data_prefix=prefix,
                    img_suffix='.png',
                    metainfo=dict(classes=('a', 'b')),
                    pipeline=[LOAD, *pipeline],
                )
            )

    return make


@pytest.mark.parametrize(
    'pipeline',
    [
        [LABELS, VIEWS],
        [dict(type='CheckedLoading', transforms=[LOAD, LABELS]), VIEWS],
        [dict(type='RandomApply', transforms=[LABELS]), VIEWS],
        [dict(type='RandomChoice', transforms=[[PLAIN_CROP], [LABELS]]), VIEWS],
        [dict(type='MultiBranch', weak=[LABELS, PACK], strong=[PACK])],
        [dict(type='MultiBranch', weak=[dict(type='RandomApply', transforms=[LABELS]), PACK], strong=[PACK])],
    ],
)
def test_check_unlabeled__names_a_step_that_loads_labels(pipeline, make):
    message = r'train\.dataset\.unlabeled\.pipeline: LoadAnnotations needs .* do not exist: leave the step out, or'
    with pytest.raises(UsageError, match=message):
        check_unlabeled(Semi(make(*pipeline)), 'train.dataset')


@pytest.mark.parametrize('pipeline', [[CROP, VIEWS], [dict(type='MultiBranch', weak=[PACK], strong=[CROP, PACK])]])
@pytest.mark.parametrize('labels', [False, True])
def test_check_unlabeled__names_a_crop_by_classes(pipeline, labels, make):
    with pytest.raises(UsageError, match=r'RandomCrop needs .* leave out cat_max_ratio=0\.75'):
        check_unlabeled(Semi(make(*pipeline, labels=labels)), 'train.dataset')


@pytest.mark.parametrize(
    ('step', 'message'),
    [
        (
            dict(type='LoadBiomedicalAnnotation'),
            'LoadBiomedicalAnnotation needs .* do not exist: leave the step out, or',
        ),
        (dict(type='GenerateEdge'), 'GenerateEdge needs .* do not exist: leave the step out$'),
        (dict(type='BioMedical3DRandomCrop', crop_shape=8), 'BioMedical3DRandomCrop needs .* leave the step out$'),
        (
            dict(type='BioMedical3DRandomFlip', prob=0.5, axes=(0,)),
            'BioMedical3DRandomFlip needs .* leave the step out$',
        ),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_check_unlabeled__names_other_steps(step, message, make):
    with pytest.raises(UsageError, match=message):
        check_unlabeled(Semi(make(step, VIEWS)), 't')


@pytest.mark.parametrize(
    ('wrap', 'place'),
    [
        (lambda data: Semi(RepeatDataset(data, 2)), r't\.unlabeled\.dataset\.pipeline'),
        (lambda data: Semi(ConcatDataset([data, data])), r't\.unlabeled\.datasets\.0\.pipeline'),
        (lambda data: RepeatDataset(data, 2), None),
    ],
)
def test_check_unlabeled__looks_into_wrappers(wrap, place, make):
    dataset = wrap(make(LABELS, VIEWS))
    if place is None:  # labeled images only: not its business
        check_unlabeled(dataset, 't')
        return
    with pytest.raises(UsageError, match=place):
        check_unlabeled(dataset, 't')


def test_check_unlabeled__looks_into_subsets(make, tmp_path):
    (tmp_path / 'list.txt').write_text('0')
    subset = LabeledSubset(make(LABELS, VIEWS), 'unlabeled', file=str(tmp_path / 'list.txt'))
    with pytest.raises(UsageError, match=r't\.unlabeled\.dataset\.pipeline'):
        check_unlabeled(Semi(subset), 't')


def test_check_unlabeled__looks_around_a_semi_supervised_data_set(make):
    class Wrapper:
        dataset = Semi(make(LABELS, VIEWS))

    with pytest.raises(UsageError, match=r't\.dataset\.unlabeled\.pipeline'):
        check_unlabeled(Wrapper(), 't')


@pytest.mark.parametrize(
    ('pipeline', 'labels'),
    [([PLAIN_CROP, VIEWS], False), ([LABELS, CROP, VIEWS], True), ([LABELS, VIEWS], True)],
)
def test_check_unlabeled__what_works(pipeline, labels, make):
    check_unlabeled(Semi(make(*pipeline, labels=labels)), 't')


def test_check_unlabeled__of_classification(tmp_path):
    class Images(BaseDataset):
        def load_data_list(self):
            return [dict(img_path='a.png')]

    check_unlabeled(Semi(Images(pipeline=[])), 't')
