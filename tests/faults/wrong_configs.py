"""Configs with one mistake each, one for every rule: what is merged into which config, and what the message says."""

from typing import Any, Dict, NamedTuple, Tuple

SEG, CLS, SEMI_SEG, SEMI_CLS = 'segmentation', 'classification', 'semi_segmentation', 'semi_classification'
H, A = 'model.decode_head', 'model.decode_head.anchor_head'
D, S, LOSS = 'train_dataloader.dataset', 'train_dataloader.sampler', 'model.head.loss'
_DIGITS = dict(type='CustomDataset', data_root='data/digits/classification', data_prefix='train', pipeline=[])
_COUNTS = dict(type='ClassCountsHook', file='three.json', kind='images')
_LOGIT_ADJUSTED = {LOSS: dict(_delete_=True, type='LogitAdjustedLoss')}
_BY_EPOCH = {'train_cfg': dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2)}
_LETTERS = dict(classes=tuple('abcdefghij'))


class Case(NamedTuple):
    """A mistake, and what the message has to name: the key, the value, and what is valid."""

    base: str  # which config, see CONFIGS in test_wrong_configs.py
    options: Dict[str, Any]  # what is merged into it, by dotted names
    words: Tuple[str, ...]

    @property
    def fault(self) -> str:
        return ', '.join(f'{name}={value!r}' for name, value in self.options.items())


# What this package checks: one sentence, and exit code 2.
CHECKED = (
    # Arguments of a wrong kind or out of range.
    Case(SEG, {f'{A}.momentum': '0.99'}, ('`momentum` to be a number in [0, 1]', "got '0.99'", f'{A}.momentum')),
    Case(
        SEG, {f'{A}.gate_threshold': 80}, ('`gate_threshold` to be a number in (0, 1)', 'got 80', f'{A}.gate_threshold')
    ),
    Case(SEG, {f'{A}.gate_per_class': 'no'}, ('`gate_per_class` to be True or False', "got 'no'")),
    Case(SEG, {f'{A}.anchors': 'SimplexETFAnchors'}, ('`anchors` to be a dict, such as', "got 'SimplexETFAnchors'")),
    Case(
        SEG, {f'{A}.loss.pull_weight': float('nan')}, ('to be a finite number of at least 0', f'{A}.loss.pull_weight')
    ),
    Case(SEG, {f'{A}.anchors.type': 'GausianAnchors'}, ('did you mean GaussianAnchors?', f'{A}.anchors.type')),
    Case(
        SEG,
        {'val_evaluator': dict(type='ClassIoUMetric', iou_metrics='mIuO')},
        ("`iou_metrics` to be one of ('mIoU', 'mDice', 'mFscore')", "got 'mIuO'", 'val_evaluator.iou_metrics'),
    ),
    Case(CLS, {LOSS: dict(type='LDAMLoss', class_counts=[-1] * 10)}, ('`class_counts`', 'none negative', f'{LOSS}.cl')),
    # Numbers of classes and channels.
    Case(CLS, {'model.head.num_classes': 7}, ('model.head.num_classes=7', 'has 10 classes', 'set num_classes=10')),
    Case(
        SEG,
        {'val_dataloader.dataset.metainfo': dict(classes=('0', '1'), palette=[[0] * 3] * 2)},
        (f'{H}.num_classes=11', 'val_dataloader.dataset has 2 classes', 'set num_classes=2'),
    ),
    Case(SEG, {f'{A}.num_classes': 7}, ('`anchor_head.num_classes` to be 11, as in the head', 'got 7')),
    Case(SEG, {f'{A}.anchors': dict(type='EmbeddingAnchors', path='ten.npy')}, ('(11, D), one row per class',)),
    Case(
        CLS,
        {LOSS: dict(_delete_=True, type='LogitAdjustedLoss', class_counts=[3, 2, 1])},
        (f'{LOSS}.class_counts has 3 entries', 'num_classes=10', 'for each class'),
    ),
    Case(SEG, {f'{H}.loss_decode.class_weight': [1.0, 2.0]}, ('class_weight has 2 entries', 'num_classes=11')),
    Case(
        CLS,
        {'val_evaluator': [dict(type='GroupAccuracy', class_counts=[3, 2, 1])]},
        ('val_evaluator: Expected argument `class_counts`', 'each of the 10 classes', '[3, 2, 1]'),
    ),
    # What a part needs, and the config lacks.
    Case(CLS, _LOGIT_ADJUSTED, (f'{LOSS}: LogitAdjustedLoss has no class counts', "add dict(type='ClassCountsHook')")),
    Case(CLS, {'val_evaluator': [dict(type='GroupAccuracy')]}, ('val_evaluator: GroupAccuracy has no class counts',)),
    Case(CLS, {'val_evaluator': [dict(type='FeatureGeometry')]}, ("add dict(type='FeatureTapHook') to custom_hooks",)),
    # Files.
    Case(SEG, {'load_from': 'weights.pth'}, ("load_from='weights.pth': there is no such checkpoint",)),
    Case(SEG, {f'{A}.anchors': dict(type='EmbeddingAnchors', path='a.npy')}, (f'{A}.anchors.path', 'existing file')),
    Case(
        SEG,
        {f'{A}.anchors': dict(type='EmbeddingAnchors', path='two.safetensors', key='clap')},
        ("`key` to be one of ['clip', 'glove']", "got 'clap'; did you mean clip?"),
    ),
    # Parts that do not go together.
    Case(SEMI_CLS, {'model.semi': dict(_delete_=True, predict_on='teacher')}, ("one of ('student',)", "'teacher'")),
    Case(
        SEMI_CLS,
        {'model.classifier.train_cfg': dict(augments=dict(type='Mixup', alpha=0.2))},
        ('`data_preprocessor.batch_augments` to be None in semi-supervised training',),
    ),
    Case(SEMI_CLS, {'model.semi.thresh': 0.9}, ('`semi.thresh=0.9` to be one of', 'did you mean threshold?')),
    # Mistakes that mmengine meets later, or whose error names nothing.
    Case(CLS, {'optim_wrapper.optimizer.type': 'AdmW'}, ("optimizer.type='AdmW' is not", 'did you mean AdamW?')),
    Case(SEG, {'optim_wrapper.optimizer': 'AdamW'}, ("optim_wrapper.optimizer='AdamW'", "dict(type='SGD', lr=0.01)")),
    Case(CLS, {'default_hooks.checkpoint.intervall': 5}, ('has no option intervall', 'did you mean interval?')),
    # What data and hooks need.
    Case(
        CLS,
        {D: dict(_delete_=True, type='LabeledSubset', part='labeled', per_class=1000, dataset=_DIGITS)},
        ('class 0 (0) has 120 images, but 1000 are to be drawn',),
    ),
    Case(SEMI_CLS, {f'{D}.unlabeled.dataset.metainfo': _LETTERS}, ("have the classes ['0',", "unlabeled ones ['a',")),
    Case(CLS, {**_LOGIT_ADJUSTED, 'custom_hooks': [_COUNTS]}, ('three.json', 'counts of 3 classes', 'num_classes=10')),
    Case(
        CLS,
        {
            'custom_hooks': [dict(type='FeatureTapHook', layer='head.fcc')],
            'val_evaluator': [dict(type='FeatureGeometry')],
        },
        ("got 'head.fcc'", 'one of the layers of ImageClassifier', 'head.fc,'),
    ),
    Case(
        CLS,
        {'custom_hooks': [dict(type='DeferredReweightingHook', begin=1)]},
        ('an IterBasedTrainLoop has none', 'use by_epoch=False'),
    ),
    Case(
        CLS,
        {**_BY_EPOCH, 'custom_hooks': [dict(type='DeferredResamplingHook', begin=1)]},
        ("'InfiniteSampler'", "sampler=dict(type='ClassPowerSampler', power=1)"),
    ),
)

# Whatever else is refused: a traceback, and a line of help where a name can be found in the config.
RAISED = (
    # Unknown options, and options at the wrong level.
    Case(SEG, {f'{A}.momentun': 0.99}, (f'{A}.momentun: SemanticAnchorHead has no option', 'did you mean momentum?')),
    Case(SEG, {f'{A}.pull_weight': 0.5}, ('SemanticAnchorHead has no option pull_weight', f'set {A}.loss.pull_weight')),
    Case(SEG, {f'{A}.loss.momentum': 0.9}, ('SARLoss has no option momentum', f'set {A}.momentum')),
    Case(CLS, {'model.backbone': dict(_delete_=True, type='CIFARResNet', deph=32)}, ('did you mean depth?',)),
    Case(SEMI_CLS, {'model.semi.teacher': dict(momentun=0.1)}, ('MeanTeacher has no option', 'did you mean momentum?')),
    Case(
        CLS,
        {'model.head': dict(_delete_=True, type='SARLinearClsHead', num_clases=10, in_channels=64)},
        ('model.head.num_clases: SARLinearClsHead has no option', 'did you mean num_classes?'),
    ),
    Case(CLS, {'train_dataloader.batch_sise': 8}, ('train_dataloader.batch_sise', 'did you mean batch_size?')),
    Case(CLS, {'optim_wrapper.optimizer.weight_decy': 0.1}, ('optimizer.weight_decy', 'did you mean weight_decay?')),
    # Unknown types.
    Case(SEG, {f'{H}.type': 'SARFCHead'}, (f"{H}.type='SARFCHead' is not registered", 'did you mean SARFCNHead')),
    Case(SEG, {f'{H}.type': 'mine.Xyzzy'}, ('put its module into custom_imports and on PYTHONPATH',)),
    Case(CLS, {f'{D}.pipeline.1.type': 'Resise'}, (f"{D}.pipeline.1.type='Resise'", 'did you mean Resize')),
    Case(CLS, {'custom_hooks': [dict(type='ClassCountHook')]}, ('custom_hooks.0.type', 'did you mean ClassCountsHook')),
    Case(CLS, {'runner_type': 'FlexibelRunner'}, ("runner_type='FlexibelRunner'", 'did you mean FlexibleRunner')),
    # Errors of data sets, loops and models.
    Case(CLS, {f'{D}.data_root': 'nowhere'}, ('No such file', 'nowhere/train')),
    Case(
        CLS,
        {**_LOGIT_ADJUSTED, 'custom_hooks': [dict(type='ClassCountsHook', file='none.json')]},
        ('there are no class counts in none.json', 'class_counts.py CONFIG` writes them'),
    ),
    Case(CLS, {'val_cfg': dict(type='TeacherStudentValLoop')}, ("use val_cfg = dict(type='ValLoop')",)),
    Case(SEG, {H: dict(_delete_=True, type='SARSTDCHead')}, ('can have no semantic anchors', 'use the SAR')),
    Case(
        SEMI_SEG,
        {'model.segmentor.decode_head.loss_decode': dict(_delete_=True, type='LovaszLoss', reduction='none')},
        ('SemiSegmentor cannot train a SARFCNHead with LovaszLoss', 'use CrossEntropyLoss'),
    ),
)

# What stands behind --cfg-options, and whether it ends the run.
COMMAND_LINE = (
    (Case(CLS, {f'{D}.pipeline.9.scale': 20}, (f'{D}.pipeline.9.scale', 'Index 9 exceeds the length')), True),
    (Case(CLS, {'model.head.num_classes.value': 20}, ('num_classes.value', 'do not fit the config')), True),
    (Case(CLS, {'modle.head.num_classes': 10}, ('--cfg-options modle:', 'did you mean model?')), False),
    (Case(CLS, {'my_flag': 3}, ('--cfg-options my_flag: neither the config nor a runner has this key',)), False),
)

# What is put into a config that trains all the same, and what is warned of.
UNREAD = {
    'custom_hook = []': ('nothing reads custom_hook in the config', 'did you mean custom_hooks?'),
    'lr = 0.1': (),
    'env_cfg = dict(cudnn=True)': (),
}

# Whole configs, and what is said of them.
CONFIG_FILES = {
    "_base = 'mmseg::_base_/default_runtime.py'": ('did you mean _base_?', 'the config has no `model`'),
    "_base_ = './fcn_hr48.py'": ('FileNotFoundError', 'fcn_hr48.py'),
    "_base_ = 'mmsegm::_base_/default_runtime.py'": ('mmsegm',),
    "custom_imports = dict(imports=['sar_m'])": ('cannot import sar_m:', 'PYTHONPATH', 'did you mean sar_mm?'),
    "custom_imports = dict(imports=['my_heads'])": ('cannot import my_heads: install it', 'on PYTHONPATH'),
    'model = dict(': ('config wrong.py cannot be read', "'(' was never closed"),
}
