"""Configs with one mistake each: what is merged into which config, and what the message has to say."""

from typing import Any, Dict, NamedTuple, Optional, Tuple

SEG, CLS, SEMI_SEG, SEMI_CLS = 'segmentation', 'classification', 'semi_segmentation', 'semi_classification'
NAN, INF = float('nan'), float('inf')
IN_01, INSIDE_01, IN_0_TO_1 = 'a number in [0, 1]', 'a number in (0, 1)', 'a number in [0, 1)'
WEIGHT, FLAG, A_DICT = 'a finite number of at least 0', 'True or False', 'a dict, such as'
FROM_0, FROM_1 = 'an integer of at least 0', 'an integer of at least 1'

H, A = 'model.decode_head', 'model.decode_head.anchor_head'
D, S, LOSS = 'train_dataloader.dataset', 'train_dataloader.sampler', 'model.head.loss'
HOOK, METRIC = 'custom_hooks.0', 'val_evaluator.0'
# What parts of a config need besides the option that is wrong.
_DIGITS = dict(type='CustomDataset', data_root='data/digits/classification', data_prefix='train', pipeline=[])
_NEEDED: Dict[str, Dict[str, Any]] = dict(
    DeferredReweightingHook=dict(begin=1),
    DeferredResamplingHook=dict(begin=1),
    LabelledSubset=dict(part='labelled', dataset=_DIGITS),
    LabelledUnlabelledSampler=dict(labelled=4, unlabelled=4),
    LongTailedDataset=dict(imbalance_factor=10, dataset=_DIGITS),
    SARLinearClsHead=dict(num_classes=10, in_channels=64),
    SARNormedLinearClsHead=dict(num_classes=10, in_channels=64),
)


class Case(NamedTuple):
    """A mistake, and what the message has to name: the key, the value, and the remedy or the nearest valid name."""

    fault: str
    base: str  # which config, see CONFIGS in test_wrong_configs.py
    options: Dict[str, Any]  # what is merged into it, by dotted names
    words: Tuple[str, ...]


def part(place: str, kind: str, **options: Any) -> Dict[str, Any]:
    """Return a part of a config, to be merged in: an object of ``kind`` with these options and those it needs."""
    config = {'type': kind, **_NEEDED.get(kind, {}), **options}
    if place in (HOOK, METRIC):
        return {place.rpartition('.')[0]: [config]}
    return {place: config if place.startswith(A) else {'_delete_': True, **config}}


def option(base: str, place: str, kind: Optional[str], name: str, value: Any, *words: str) -> Case:
    """Return the case of one option with this value, of an object of ``kind`` or of what the config has there."""
    options = {f'{place}.{name}': value} if kind is None else part(place, kind, **{name: value})
    config = f'{place}.{name}={value!r}' if kind is None else f"{place}=dict(type='{kind}', {name}={value!r})"
    return Case(config, base, options, (f'{place}.{name}', *words))


def misspelt(base: str, place: str, kind: Optional[str], name: str, value: Any, nearest: str) -> Case:
    return option(base, place, kind, name, value, f'{name}={value!r}', f'did you mean {nearest}?')


def bad(base: str, place: str, kind: Optional[str], name: str, value: Any, valid: str) -> Case:
    return option(base, place, kind, name, value, f'got {value!r}', valid)


def unregistered(base: str, place: str, kind: str, nearest: str) -> Case:
    options = part(place, kind) if place in (HOOK, METRIC) else {f'{place}.type': kind}
    return Case(f"{place}.type='{kind}'", base, options, (f'{place}.type', f"'{kind}'", f'did you mean {nearest}'))


def refused(base: str, place: str, kind: str, remedy: str) -> Case:
    options = {place: dict(_delete_=True, type=kind)}
    return Case(f"{place}.type='{kind}'", base, options, (f'{place}: {kind[3:]} can have no semantic anchors', remedy))


WRONG_TYPES = (
    bad(SEG, A, None, 'momentum', '0.99', IN_01),
    bad(SEG, A, None, 'momentum', None, IN_01),
    bad(SEG, A, None, 'momentum', True, IN_01),
    bad(SEG, A, None, 'gate', [0.8], INSIDE_01),
    bad(SEG, A, None, 'gate_per_class', 'no', FLAG),
    bad(SEG, A, None, 'ignore_index', '255', 'an integer or None'),
    bad(SEG, H, None, 'anchor_head', 'SemanticAnchorHead', A_DICT),
    bad(SEG, A, None, 'anchors', 'SimplexETFAnchors', A_DICT),
    bad(SEG, A, None, 'loss', ['SARLoss'], A_DICT),
    bad(SEG, f'{A}.loss', None, 'pull_weight', '0.1', WEIGHT),
    bad(SEG, f'{A}.loss', None, 'pull_weight', True, WEIGHT),
    bad(SEG, f'{A}.loss', None, 'class_balanced', 'no', FLAG),
    bad(SEG, f'{A}.loss', None, 'sync_valid', 2, FLAG),
    bad(SEG, f'{A}.anchors', 'GaussianAnchors', 'dim', '64', FROM_1),
    bad(SEG, f'{A}.anchors', 'OrthogonalAnchors', 'seed', 0.5, FROM_0),
    bad(SEG, f'{A}.anchors', 'EmbeddingAnchors', 'path', ['a.npy'], 'a .npy or .safetensors file'),
    option(SEG, H, None, 'num_classes', '11', "'11' is a string where an integer or a float may be meant"),
    bad(SEMI_CLS, 'model', None, 'semi', [0.95], A_DICT),
    bad(SEMI_CLS, 'model.semi', None, 'threshold', '0.95', IN_01),
    bad(SEMI_CLS, 'model.semi', None, 'teacher', True, A_DICT),
    bad(SEMI_SEG, 'model.semi', None, 'unsup_weight', None, WEIGHT),
    bad(SEMI_SEG, 'model.semi', None, 'joint_forward', 'no', FLAG),
    bad(CLS, LOSS, 'LogitAdjustedLoss', 'tau', '1', WEIGHT),
    bad(CLS, LOSS, 'ClassBalancedLoss', 'beta', '0.9', IN_0_TO_1),
    bad(CLS, LOSS, 'LDAMLoss', 'class_counts', 'counts.json', 'one count per class'),
    bad(CLS, D, 'LongTailedDataset', 'imbalance_factor', '100', 'a finite number of at least 1'),
    bad(CLS, D, 'LongTailedDataset', 'dataset', 'CIFAR10', 'its config: a dict'),
    bad(CLS, S, 'ClassPowerSampler', 'power', None, 'a finite number'),
    bad(CLS, HOOK, 'DeferredReweightingHook', 'begin', '160', FROM_0),
    bad(CLS, HOOK, 'DeferredReweightingHook', 'by_epoch', 'no', FLAG),
    Case(
        *('a branch of MultiBranch is no list', SEMI_CLS),
        {f'{D}.unlabelled.dataset.pipeline': [dict(type='MultiBranch', weak=dict(type='PackInputs'))]},
        (f'{D}.unlabelled.dataset.pipeline.0.weak', 'a list of transforms', "got {'type': 'PackInputs'}"),
    ),
    option(SEG, 'optim_wrapper', None, 'optimizer', 'AdamW', "'AdamW' is no dict, such as dict(type='SGD', lr=0.01)"),
)

MISSPELT_OPTIONS = (
    misspelt(SEG, 'model', None, 'decode_haed', {}, 'decode_head'),
    misspelt(SEG, H, None, 'anchor_haed', {'momentum': 0.99}, 'anchor_head'),
    misspelt(SEG, H, None, 'dropout_ration', 0.1, 'dropout_ratio'),
    misspelt(SEG, A, None, 'momentun', 0.99, 'momentum'),
    misspelt(SEG, f'{A}.loss', None, 'pul_weight', 0.5, 'pull_weight'),
    misspelt(SEG, f'{A}.anchors', 'GaussianAnchors', 'sed', 1, 'seed'),
    misspelt(SEG, f'{A}.anchors', 'OrthogonalAnchors', 'dimm', 64, 'dim'),
    misspelt(SEG, f'{A}.anchors', 'SimplexETFAnchors', 'dims', 64, 'dim'),
    misspelt(SEG, f'{A}.anchors', 'EquiangularAnchors', 'cosin', 0.1, 'cosine'),
    misspelt(SEG, f'{A}.anchors', 'SeparatedAnchors', 'step', 10, 'steps'),
    misspelt(SEG, f'{A}.anchors', 'EmbeddingAnchors', 'pat', 'a.npy', 'path'),
    misspelt(CLS, 'model.head', 'SARLinearClsHead', 'topks', (1,), 'topk'),
    misspelt(CLS, 'model.head', 'SARNormedLinearClsHead', 'scal', 30.0, 'scale'),
    Case(
        *("model.head=dict(type='SARLinearClsHead', num_clases=10, ...)", CLS),
        {'model.head': dict(_delete_=True, type='SARLinearClsHead', num_clases=10, in_channels=64)},
        ('model.head.num_clases=10', 'did you mean num_classes?'),
    ),
    Case(
        *('model.head without num_classes', CLS),
        {'model.head': dict(_delete_=True, type='SARLinearClsHead', in_channels=64)},
        ('model.head: SARLinearClsHead needs num_classes', 'add num_classes=...'),
    ),
    misspelt(SEMI_SEG, 'model', None, 'semis', {}, 'semi'),
    misspelt(SEMI_SEG, 'model.semi', None, 'cutmix_probability', 0.9, 'cutmix_prob'),
    misspelt(SEMI_CLS, 'model.semi', None, 'treshold', 0.9, 'threshold'),
    misspelt(SEMI_CLS, 'model.semi.teacher', None, 'momentun', 0.1, 'momentum'),
    misspelt(SEMI_CLS, 'model.semi.distribution_alignment', None, 'tarket', 'uniform', 'target'),
    misspelt(SEMI_CLS, 'model.semi.threshold', 'SelfAdaptiveThreshold', 'momentun', 0.9, 'momentum'),
    misspelt(CLS, LOSS, 'LogitAdjustedLoss', 'taw', 1.0, 'tau'),
    misspelt(CLS, LOSS, 'LDAMLoss', 'max_margins', 0.5, 'max_margin'),
    misspelt(CLS, LOSS, 'ClassBalancedLoss', 'betta', 0.5, 'beta'),
    misspelt(CLS, LOSS, 'LogitAdjustedLoss', 'class_count', [1] * 10, 'class_counts'),
    misspelt(CLS, D, 'LongTailedDataset', 'imbalance_faktor', 10, 'imbalance_factor'),
    misspelt(CLS, D, 'LabelledSubset', 'per_clas', 4, 'per_class'),
    misspelt(SEMI_CLS, D, None, 'max_unreadables', 3, 'max_unreadable'),
    misspelt(CLS, S, 'ClassPowerSampler', 'pwer', 0.5, 'power'),
    misspelt(SEMI_CLS, S, 'LabelledUnlabelledSampler', 'labeled', 4, 'labelled'),
    misspelt(CLS, HOOK, 'ClassCountsHook', 'files', 'counts.json', 'file'),
    misspelt(CLS, HOOK, 'DeferredReweightingHook', 'by_epochs', False, 'by_epoch'),
    misspelt(CLS, HOOK, 'DeferredResamplingHook', 'powr', 0, 'power'),
    misspelt(CLS, HOOK, 'FeatureTapHook', 'layers', 'head.fc', 'layer'),
    misspelt(CLS, METRIC, 'GroupAccuracy', 'manny', 100, 'many'),
    misspelt(CLS, METRIC, 'FeatureGeometry', 'ignore_indx', 100, 'ignore_index'),
    misspelt(SEG, 'val_evaluator', 'GroupIoUMetric', 'comon', 0.1, 'common'),
    misspelt(SEG, 'val_evaluator', 'ClassIoUMetric', 'iou_metric', ['mIoU'], 'iou_metrics'),
    bad(SEG, 'val_evaluator', 'ClassIoUMetric', 'iou_metrics', 'mIuO', "one of ('mIoU', 'mDice', 'mFscore')"),
    misspelt(SEMI_CLS, 'val_cfg', 'StudentTeacherValLoop', 'fp', True, 'fp16'),
    misspelt(CLS, 'model.backbone', 'WideResNet', 'widen_faktor', 2, 'widen_factor'),
    misspelt(CLS, 'model.backbone', 'CIFARResNet', 'deph', 32, 'depth'),
    misspelt(CLS, 'train_dataloader', None, 'batch_sise', 8, 'batch_size'),
    misspelt(CLS, D, None, 'data_prefx', 'train', 'data_prefix'),
    misspelt(CLS, f'{D}.pipeline.2', None, 'crop_sise', 8, 'crop_size'),
    misspelt(CLS, 'train_cfg', None, 'max_iter', 8, 'max_iters'),
    misspelt(CLS, 'optim_wrapper.optimizer', None, 'weight_decy', 0.1, 'weight_decay'),
    misspelt(SEG, 'param_scheduler', None, 'powr', 0.1, 'power'),
    misspelt(CLS, 'randomness', None, 'sed', 0, 'seed'),
    misspelt(CLS, 'default_hooks.checkpoint', None, 'intervall', 5, 'interval'),
)

MISSPELT_TYPES = (
    unregistered(SEG, H, 'SARFCHead', 'SARFCNHead'),
    unregistered(SEG, H, 'FCNHed', 'FCNHead'),
    unregistered(SEG, H, 'sar_mm.SARFCNHaed', 'SARFCNHead'),
    unregistered(SEG, H, 'sarmm.SARFCNHead', 'SARFCNHead'),
    unregistered(SEG, H, 'mmsegm.FCNHead', 'FCNHead'),
    unregistered(SEG, A, 'SemanticAnchorsHead', 'SemanticAnchorHead'),
    unregistered(SEG, f'{A}.anchors', 'GausianAnchors', 'GaussianAnchors'),
    unregistered(SEG, f'{A}.loss', 'SARLos', 'SARLoss'),
    unregistered(SEG, D, 'BaseSegDatset', 'BaseSegDataset'),
    unregistered(CLS, 'model.head', 'SARLinearHead', 'SARLinearClsHead'),
    unregistered(CLS, 'model.backbone', 'WideResnet', 'WideResNet'),
    unregistered(CLS, LOSS, 'LogitAdjustLoss', 'LogitAdjustedLoss'),
    unregistered(CLS, D, 'LongTailDataset', 'LongTailedDataset'),
    unregistered(CLS, S, 'ClasPowerSampler', 'ClassPowerSampler'),
    unregistered(CLS, HOOK, 'ClassCountHook', 'ClassCountsHook'),
    unregistered(CLS, METRIC, 'GroupAcuracy', 'GroupAccuracy'),
    unregistered(CLS, 'optim_wrapper.optimizer', 'AdmW', 'AdamW'),
    unregistered(SEMI_SEG, 'model', 'SemiSegmenter', 'SemiSegmentor'),
    unregistered(SEMI_CLS, 'model.semi.teacher', 'MeanTeecher', 'MeanTeacher'),
    unregistered(SEMI_CLS, 'val_cfg', 'TeacherStudentValLoop', 'StudentTeacherValLoop'),
    unregistered(SEMI_CLS, f'{D}.unlabelled.dataset.pipeline.3', 'MultiBranches', 'MultiBranch'),
    Case(
        *("runner_type='FlexibelRunner'", CLS, {'runner_type': 'FlexibelRunner'}),
        ("runner_type='FlexibelRunner'", 'did you mean FlexibleRunner'),
    ),
    Case(
        *(f'{H} without a type', SEG, {H: dict(_delete_=True, in_channels=32, channels=64, num_classes=11)}),
        (f'{H}=', 'has no type', "add type='...'"),
    ),
)

OUT_OF_RANGE = (
    bad(SEG, A, None, 'momentum', -0.1, IN_01),
    bad(SEG, A, None, 'momentum', 1.5, IN_01),
    bad(SEG, A, None, 'momentum', NAN, IN_01),
    bad(SEG, A, None, 'gate', 1.0, INSIDE_01),
    bad(SEG, A, None, 'gate', 80, INSIDE_01),
    bad(SEG, f'{A}.loss', None, 'pull_weight', -1, WEIGHT),
    bad(SEG, f'{A}.loss', None, 'anchor_weight', NAN, WEIGHT),
    bad(SEG, f'{A}.loss', None, 'separation_weight', INF, WEIGHT),
    bad(SEG, f'{A}.loss', None, 'confidence', 1.5, INSIDE_01),
    bad(SEG, f'{A}.loss', None, 'separation_margin', 2.0, 'a number in [-1, 1]'),
    bad(SEG, f'{A}.anchors', 'GaussianAnchors', 'seed', -1, FROM_0),
    bad(SEG, f'{A}.anchors', 'EquiangularAnchors', 'cosine', 1.0, '[-1 / (K - 1), 1)'),
    bad(SEG, f'{A}.anchors', 'EquiangularAnchors', 'cosine', -0.5, '[-0.1, 1) for 11 classes'),
    bad(CLS, LOSS, 'LogitAdjustedLoss', 'tau', -1, WEIGHT),
    bad(CLS, LOSS, 'LogitAdjustedLoss', 'tau', INF, WEIGHT),
    bad(CLS, LOSS, 'LDAMLoss', 'max_margin', NAN, WEIGHT),
    bad(CLS, LOSS, 'LDAMLoss', 'loss_weight', -1.0, WEIGHT),
    bad(CLS, LOSS, 'LDAMLoss', 'class_weight', [-1.0] * 10, 'a list of finite numbers of at least 0'),
    bad(CLS, LOSS, 'LDAMLoss', 'class_counts', [-1] * 10, 'none negative and not all zero'),
    bad(CLS, LOSS, 'ClassBalancedLoss', 'beta', 1.0, IN_0_TO_1),
    bad(CLS, D, 'LongTailedDataset', 'imbalance_factor', 0.01, 'a finite number of at least 1'),
    bad(CLS, D, 'LabelledSubset', 'fraction', 0, 'a number in (0, 1]'),
    Case(
        *(f"{D}=dict(type='LabelledSubset', per_class=1000)", CLS, part(D, 'LabelledSubset', per_class=1000)),
        (f'{D}: class 0 (0) has 120 images, but 1000 are to be drawn',),
    ),
    bad(SEMI_CLS, 'model.semi', None, 'threshold', 1.5, IN_01),
    bad(SEMI_CLS, 'model.semi.teacher', None, 'momentum', 2, IN_01),
    bad(SEMI_SEG, 'model.semi', None, 'unsup_weight', NAN, WEIGHT),
    bad(SEMI_SEG, 'model.semi', None, 'feature_dropout', 1.0, 'below 1'),
    bad(SEMI_CLS, S, None, 'labelled', 0, FROM_1),
    bad(CLS, HOOK, 'DeferredReweightingHook', 'begin', -1, FROM_0),
    bad(CLS, METRIC, 'GroupAccuracy', 'many', 5, 'at least few - 1 = 19'),
    bad(SEG, 'val_evaluator', 'GroupIoUMetric', 'rare', 0.1, 'at most common = 0.05'),
)

_NINE, _LETTERS = dict(classes=tuple('012345678')), dict(classes=tuple('abcdefghij'))
_AUXILIARY = dict(type='SARFCNHead', in_channels=32, in_index=2, channels=8, num_classes=5)
_COUNTS = dict(type='ClassCountsHook', file='three.json')
CLASS_NUMBERS = (
    option(CLS, 'model.head', None, 'num_classes', 7, '=7', 'has 10 classes', 'set num_classes=10'),
    option(SEG, H, None, 'num_classes', 12, '=12', 'has 11 classes', 'set num_classes=11'),
    option(SEG, 'model', None, 'auxiliary_head', _AUXILIARY, 'num_classes=5', 'has 11 classes', 'set num_classes=11'),
    Case(
        *('9 class names for 10 folders of labelled images', SEMI_CLS, {f'{D}.labelled.dataset.metainfo': _NINE}),
        (f'{D}.labelled.dataset', 'subfolders (10)', 'classes (9)', 'check the data folder'),
    ),
    Case(
        *('labelled and unlabelled images of different classes', SEMI_CLS),
        {f'{D}.unlabelled.dataset.metainfo': _LETTERS},
        (f"{D}: the labelled images have the classes ['0',", "but the unlabelled ones ['a',"),
    ),
    Case(
        *('validation data of 2 classes for a head of 11', SEG),
        {'val_dataloader.dataset.metainfo': dict(classes=('0', '1'), palette=[[0] * 3] * 2)},
        (f'{H}.num_classes=11', 'val_dataloader.dataset has 2 classes', 'set num_classes=2'),
    ),
    bad(SEG, A, None, 'num_classes', 7, '11, as in the head'),
    bad(SEG, A, None, 'channels', 7, '64, as in the head'),
    bad(SEG, H, None, 'out_channels', 1, 'None or num_classes=11'),
    bad(SEG, f'{A}.anchors', 'EmbeddingAnchors', 'path', 'ten.npy', '(11, D), one row per class'),
    bad(SEG, f'{A}.anchors', 'EmbeddingAnchors', 'path', 'flat.npy', '(11, D), one row per class'),
    bad(SEG, f'{A}.anchors', 'OrthogonalAnchors', 'dim', 8, 'at least the number of classes (11)'),
    bad(SEG, f'{A}.anchors', 'SimplexETFAnchors', 'dim', 8, 'at least the number of classes less one (10)'),
    Case(
        *('a file with the counts of 3 classes for a head of 10', CLS),
        {**part(LOSS, 'LogitAdjustedLoss'), 'custom_hooks': [dict(_COUNTS, kind='images')]},
        (HOOK, "file='three.json' has counts of 3 classes", 'num_classes=10'),
    ),
    Case(
        *('a file without counts of this kind', CLS),
        {**part(LOSS, 'LogitAdjustedLoss'), 'custom_hooks': [dict(_COUNTS, kind='pixels')]},
        (HOOK, "three.json has no counts of kind='pixels', only of ['images']"),
    ),
    option(
        CLS, LOSS, 'LogitAdjustedLoss', 'class_counts', [3, 2, 1], 'has 3 entries', 'num_classes=10', 'for each class'
    ),
    option(
        CLS, LOSS, 'LogitAdjustedLoss', 'class_weight', [1.0, 2.0], 'has 2 entries', 'num_classes=10', 'for each class'
    ),
    option(
        SEG, f'{H}.loss_decode', None, 'class_weight', [1.0, 2.0], 'has 2 entries', 'num_classes=11', 'for each class'
    ),
    Case(
        *('a metric with the counts of 3 classes for data of 10', CLS),
        part(METRIC, 'GroupAccuracy', class_counts=[3, 2, 1]),
        ('val_evaluator: Expected argument `class_counts`', 'each of the 10 classes', '[3, 2, 1]'),
    ),
)

_STDC = dict(type='STDCHead', in_channels=32, in_index=2, channels=64, num_classes=2, boundary_threshold=0.1)
_MIXUP = dict(augments=dict(type='Mixup', alpha=0.2))
REFUSED = (
    refused(SEG, H, 'SARSTDCHead', 'use the SAR versions of the other heads'),
    refused(SEG, H, 'SARMask2FormerHead', 'use SARUPerHead or SARFPNHead'),
    refused(SEG, H, 'SARSegmenterMaskTransformerHead', 'use SARFCNHead or SARSETRUPHead'),
    refused(CLS, 'model.head', 'SARClsHead', 'use SARLinearClsHead'),
    refused(CLS, 'model.head', 'SARMultiLabelClsHead', 'use SARMultiLabelLinearClsHead'),
    refused(CLS, 'model.head', 'SARMAEPretrainHead', 'use SAR when the model is fine-tuned'),
    Case(
        *('SAR on a head that mmpretrain cannot train distilled', CLS),
        {'model.head': dict(_delete_=True, type='SAREfficientFormerClsHead', num_classes=10, in_channels=64)},
        ('model.head.distillation', 'to be False', 'got True'),
    ),
    Case(
        *('semi-supervised training of a head without classes', SEMI_SEG),
        {'model.segmentor.decode_head': dict(_delete_=True, **_STDC)},
        ('model: SemiSegmentor cannot train a STDCHead', 'it makes edges of the labels'),
    ),
    Case(
        *('semi-supervised training with a loss that fails where all pixels are ignored', SEMI_SEG),
        {'model.segmentor.decode_head.loss_decode': dict(_delete_=True, type='LovaszLoss', reduction='none')},
        ('model: SemiSegmentor cannot train a SARFCNHead with LovaszLoss', 'use CrossEntropyLoss'),
    ),
    Case(
        *('semi-supervised training with mixup', SEMI_CLS, {'model.classifier.train_cfg': _MIXUP}),
        ('model.data_preprocessor.batch_augments', 'to be None in semi-supervised training'),
    ),
    bad(SEMI_CLS, 'model', None, 'semi', dict(_delete_=True, predict_with='teacher'), "one of ('student',)")._replace(
        words=('model.semi.predict_with', "'teacher'", "one of ('student',)")
    ),
    Case(
        *('student and teacher of a plain model validated', CLS, {'val_cfg': dict(type='StudentTeacherValLoop')}),
        ('val_cfg: StudentTeacherValLoop is for', 'ImageClassifier', "use val_cfg = dict(type='ValLoop')"),
    ),
    Case(
        *('re-weighting from an epoch on, without epochs', CLS, part(HOOK, 'DeferredReweightingHook')),
        (HOOK, 'an IterBasedTrainLoop has none', 'use by_epoch=False'),
    ),
    Case(
        *('deferred resampling with another sampler', CLS),
        {
            **part(HOOK, 'DeferredResamplingHook'),
            'train_cfg': dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2),
        },
        (f'{S}: Expected', "'InfiniteSampler'", "sampler=dict(type='ClassPowerSampler', power=1)"),
    ),
)

FILES = (
    option(CLS, D, None, 'data_root', 'nowhere', "='nowhere': No such file", 'name another data_root'),
    option(SEG, D, None, 'data_root', 'nowhere', "='nowhere': No such file", 'name another data_root'),
    Case(
        *(f"{D}.img_suffix='.tiff'", SEG, {f'{D}.img_suffix': '.tiff'}),
        (f'{D}: there is no image', "img_suffix='.tiff'", 'name another folder, list or suffix'),
    ),
    Case(
        *(f"{D}.ann_file='lists/train.txt'", SEG, {f'{D}.ann_file': 'lists/train.txt'}),
        (f'{D}: ', 'Failed to load `ann_file` data/digits/segmentation/lists/train.txt'),
    ),
    Case(
        *("load_from='weights.pth'", SEG, {'load_from': 'weights.pth'}),
        ("load_from='weights.pth': there is no such checkpoint", 'name another one'),
    ),
    bad(SEG, f'{A}.anchors', 'EmbeddingAnchors', 'path', 'names.npy', 'an existing file'),
    bad(SEG, f'{A}.anchors', 'EmbeddingAnchors', 'path', 'names.pt', 'a .npy or .safetensors file'),
    Case(
        *('two tensors in the anchor file, none of them named', SEG),
        part(f'{A}.anchors', 'EmbeddingAnchors', path='two.safetensors'),
        (f'{A}.anchors.key', "one of ['clip', 'glove']", 'got None'),
    ),
    Case(
        *('a tensor that the anchor file has not', SEG),
        part(f'{A}.anchors', 'EmbeddingAnchors', path='two.safetensors', key='clap'),
        (f'{A}.anchors.key', "one of ['clip', 'glove']", "got 'clap'; did you mean clip?"),
    ),
    Case(
        *('counts file that does not exist', CLS),
        {**part(LOSS, 'LogitAdjustedLoss'), **part(HOOK, 'ClassCountsHook', file='counts.json')},
        (HOOK, 'there are no class counts in counts.json', 'class_counts.py CONFIG` writes them'),
    ),
    option(CLS, D, 'LabelledSubset', 'file', 'labelled.txt', "='labelled.txt': No such file", 'name another file'),
    Case(
        *('a long-tailed loss without class counts', CLS, part(LOSS, 'LogitAdjustedLoss')),
        (f'{LOSS}: LogitAdjustedLoss has no class counts', "add dict(type='ClassCountsHook') to custom_hooks"),
    ),
    Case(
        *('a loss of anchors under the prior without class counts', SEG, part(f'{A}.loss', 'LogitAdjustedSARLoss')),
        (f'{A}.loss: LogitAdjustedSARLoss has no class counts', "add dict(type='ClassCountsHook') to custom_hooks"),
    ),
    Case(
        *('a metric without class counts', CLS, part(METRIC, 'GroupAccuracy')),
        ('val_evaluator: GroupAccuracy has no class counts', "add dict(type='ClassCountsHook') to custom_hooks"),
    ),
    Case(
        *('a metric of features without the hook that shows them', CLS, part(METRIC, 'FeatureGeometry')),
        ('val_evaluator: FeatureGeometry sees no features', "add dict(type='FeatureTapHook') to custom_hooks"),
    ),
    Case(
        *('a layer that does not exist', CLS),
        {**part(HOOK, 'FeatureTapHook', layer='head.fcc'), **part(METRIC, 'FeatureGeometry')},
        (f'{HOOK}.layer', "got 'head.fcc'", 'one of the layers of ImageClassifier', 'head.fc,'),
    ),
)

# What stands behind --cfg-options.
COMMAND_LINE = (
    misspelt(CLS, 'modle.head', None, 'num_classes', 10, 'model'),
    Case('custom_hook=[]', CLS, {'custom_hook': []}, ('custom_hook=[]', 'did you mean custom_hooks?')),
    Case('learning_rate=0.1', CLS, {'learning_rate': 0.1}, ('learning_rate=0.1: the config has no learning_rate',)),
    Case(
        *(f'{H}.anchor_haed.momentum=0.99', SEG, {f'{H}.anchor_haed.momentum': 0.99}),
        (f"{H}.anchor_haed={{'momentum': 0.99}}", 'did you mean anchor_head?'),
    ),
    Case(
        *('default_hooks.loger.interval=1', CLS, {'default_hooks.loger.interval': 1}),
        ("default_hooks.loger={'interval': 1} has no type", 'did you mean logger?'),
    ),
    Case(
        *(f'{D}.pipeline.9.scale=20', CLS, {f'{D}.pipeline.9.scale': 20}),
        (f'{D}.pipeline.9.scale=20 does not fit', 'Index 9 exceeds the length'),
    ),
    Case(
        *('model.head.num_classes.value=20', CLS, {'model.head.num_classes.value': 20}),
        ('model.head.num_classes.value=20 does not fit', "of type <class 'int'> in base config"),
    ),
    misspelt(CLS, 'auto_scale_lr', None, 'base_batchsize', 8, 'base_batch_size'),
)

CASES = {
    name: globals()[name]
    for name in (
        *('WRONG_TYPES', 'MISSPELT_OPTIONS', 'MISSPELT_TYPES', 'OUT_OF_RANGE', 'CLASS_NUMBERS', 'REFUSED', 'FILES'),
        'COMMAND_LINE',
    )
}

# Whole configs, and what is wrong with them.
CONFIG_FILES = {
    "_base = 'mmseg::_base_/default_runtime.py'": ("_base='mmseg::", 'did you mean _base_?'),
    "_bases_ = ['mmseg::_base_/default_runtime.py']": ("_bases_=['mmseg::", 'did you mean _base_?'),
    "__base__ = 'mmseg::_base_/default_runtime.py'": ('the config has no `model`', '`_base_` (spelt so)'),
    "_base_ = './fcn_hr48.py'": ('_base_: No such file or directory', 'fcn_hr48.py'),
    "_base_ = 'mmsegm::_base_/default_runtime.py'": ('_base_: there is no toolbox mmsegm', 'mmseg::'),
    "_base_ = 'mmsegmentation::_base_/default_runtime.py'": ('_base_: there is no toolbox mmsegmentation', 'mmseg::'),
    "_base_ = 'mmseg::hrnet/fcn_hr48_4xb2-80k_cityscape-512x1024.py'": (
        *('_base_: No such file', 'did you mean fcn_hr48_4xb2-80k_cityscapes-512x1024.py?'),
    ),
    "_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1.py'": ('_base_: No such file', 'mean resnet50_8xb32_in1k.py?'),
    "custom_imports = dict(imports=['sar_m'])": ("custom_imports={'imports': ['sar_m']}", 'did you mean sar_mm?'),
    "custom_imports = dict(imports=['sar_mm.modles'])": ("'sar_mm.modles'", 'did you mean models?'),
    "custom_imports = ['sar_mm']": ('custom_imports is no dict', "such as dict(imports=['sar_mm'])"),
    "custom_import = dict(imports=['sar_mm'])": ("custom_import={'imports': ['sar_mm']}", 'mean custom_imports?'),
    'model = dict(': ('cannot be read: SyntaxError', "'(' was never closed"),
}
