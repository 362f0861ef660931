"""From a row of the matrix to the config that a user would write."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import tiny  # noqa: F401  registers the data and the hook
from mmengine.config import Config
from mmengine.dist import get_rank
from parts import (
    ANCHORS,
    BASELINES,
    COUNTED,
    HOOKS,
    LOSSES,
    SAMPLERS,
    SAR_LOSSES,
    SEGMENTATION,
    SEMI,
    SEMI_OPTIONS,
)

NORM = dict(type='BN')
MEANS = dict(mean=[127.5] * 3, std=[127.5] * 3)


class Setting:
    """What a row is trained with: its parts, and what the run that loads its weights has otherwise.

    Args:
        row: Values by factor.
        folder: Where runs are, and files that the config names.
        change: What differs: 'classes', 'channels', 'anchors', 'gate' or another value for nothing.
    """

    def __init__(self, row: Dict[str, str], folder: Path, change: Optional[str] = None) -> None:
        self.row, self.folder = row, folder
        self.files = folder / f'files-{get_rank()}'  # each process has its own
        self.files.mkdir(exist_ok=True)
        self.is_segmentation = row['head'] in SEGMENTATION
        self.toolbox = 'mmseg' if self.is_segmentation else 'mmpretrain'
        self.is_semi = row['wrapper'] in SEMI
        self.has_baseline = row['baseline'] != 'none'
        self.num_classes = 2 if row['head'] == 'binary' else 4 + (change == 'classes')
        self.width = 8 + 4 * (change == 'channels')
        self.by_class = (row['gate'] == 'per-class') != (change == 'gate')
        self.anchors = dict(ANCHORS[row['anchors']])
        if change == 'anchors':
            self.anchors = dict(type='GaussianAnchors', seed=77)
        elif row['anchors'] == 'file':
            self.anchors.update(path=self.write_names())

    def write_names(self) -> str:
        path = self.files / f'names-{self.num_classes}.npy'
        np.save(path, np.random.default_rng(0).standard_normal((self.num_classes, 11)).astype(np.float32))
        return str(path)

    def write_counts(self) -> str:
        path = self.files / f'counts-{self.num_classes}.json'
        counts = [1000 // (k + 1) for k in range(self.num_classes)]
        classes = [f'class {k}' for k in range(self.num_classes)]
        path.write_text(json.dumps(dict(classes=classes, images=counts, pixels=counts)))
        return str(path)

    def write_list(self) -> str:
        path = self.files / 'labeled.txt'
        path.write_text('\n'.join(map(str, range(4))))
        return str(path)

    # The model.

    def head(self, kind: str, **options: Any) -> dict:
        settings = dict(gate_threshold=0.3, gate_per_class=self.by_class, momentum=0.9, anchors=self.anchors)
        settings.update(loss=SAR_LOSSES[self.row['sar']])
        if self.has_baseline:
            settings = dict(type=BASELINES[self.row['baseline']])
        return dict(type=f'SAR{kind}', num_classes=self.num_classes, anchor_head=settings, **options)

    def loss(self) -> dict:
        name, head = self.row['loss'], self.row['head']
        loss = dict(LOSSES[name])
        if loss.pop('class_weight', False):
            loss['class_weight'] = [1.0 + 0.5 * k for k in range(self.num_classes)]
        if loss['type'] == 'CrossEntropyLoss' and head in ('binary', 'multi-label'):
            loss['use_sigmoid'] = True
        if loss['type'] == 'CrossEntropyLoss' and head == 'mixup':
            loss['use_soft'] = True
        return loss

    def segmentor(self) -> dict:
        head, width = self.row['head'], self.width
        backbone = dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=NORM, strides=(1, 1, 1, 1))
        common = dict(loss_decode=self.loss())
        if self.row['loss'] == 'ohem':
            common.update(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=20))
        fcn = dict(channels=width, num_convs=1, concat_input=False, norm_cfg=NORM, dropout_ratio=0.1, **common)
        last = dict(in_channels=32, in_index=3)
        model = dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', size=(tiny.SIZE, tiny.SIZE), **MEANS),
            backbone=backbone,
            decode_head=self.head('FCNHead', **last, **fcn),
            train_cfg=dict(),
            test_cfg=dict(mode='whole'),
        )
        if head == 'auxiliary':
            model['auxiliary_head'] = self.head('FCNHead', in_channels=16, in_index=2, **fcn)
        elif head == 'binary':
            model['decode_head'].update(out_channels=1)
        elif head == 'cascade':
            ocr = dict(ocr_channels=8, channels=width, norm_cfg=NORM, **last, **common)
            model.update(type='CascadeEncoderDecoder', num_stages=2)
            model['decode_head'] = [model['decode_head'], self.head('OCRHead', **ocr)]
        elif head == 'knet':
            update = dict(type='KernelUpdateHead', num_classes=self.num_classes, num_ffn_fcs=2, num_heads=2)
            update.update(num_mask_fcs=1, feedforward_channels=8, in_channels=width, out_channels=width, dropout=0.0)
            update.update(conv_kernel_size=1, feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), act_cfg=None))
            updator = dict(type='KernelUpdator', in_channels=width, feat_channels=width, out_channels=width)
            first = dict(fcn, type='FCNHead', num_classes=self.num_classes, **last)
            model['decode_head'] = self.head(
                'IterativeDecodeHead',
                num_stages=1,
                kernel_generate_head=first,
                kernel_update_head=[dict(update, kernel_updator_cfg=updator)],
            )
            del model['decode_head']['num_classes']
        return model

    def classifier(self) -> dict:
        head, width = self.row['head'], self.width
        channels = 4 * (width // 2)
        kind = dict(normed='NormedLinearClsHead', deit='DeiTClsHead').get(head, 'LinearClsHead')
        kind = 'MultiLabelLinearClsHead' if head == 'multi-label' else kind
        model = dict(
            type='ImageClassifier',
            data_preprocessor=dict(num_classes=self.num_classes, **MEANS),
            backbone=dict(type='CIFARResNet', depth=8, base_channels=width // 2),
            neck=dict(type='GlobalAveragePooling'),
            head=self.head(kind, in_channels=channels, loss=self.loss()),
        )
        if head == 'deit':
            arch = dict(embed_dims=width, num_layers=1, num_heads=2, feedforward_channels=8)
            model['backbone'] = dict(type='DistilledVisionTransformer', arch=arch, img_size=tiny.SIZE, patch_size=8)
            model['head'].update(in_channels=width)
            del model['neck']
        elif head == 'mixup':
            model.update(train_cfg=dict(augments=dict(type='Mixup', alpha=0.5)))
        return model

    def model(self) -> dict:
        plain = self.segmentor() if self.is_segmentation else self.classifier()
        if not self.is_semi:
            return plain
        options = deepcopy(SEMI_OPTIONS[self.row['wrapper']])
        if self.is_segmentation:
            if self.row['wrapper'] == 'semi-adaptive':
                options.update(feature_dropout=0.5)
            return dict(type='SemiSegmentor', segmentor=plain, semi=options)
        return dict(type='SemiClassifier', classifier=plain, semi=options)

    # The data.

    def images(self, pipeline: list, **options: Any) -> dict:
        kind = 'multi-label' if self.row['head'] == 'multi-label' else 'classification'
        kind = 'segmentation' if self.is_segmentation else kind
        return dict(type='TinyImages', kind=kind, num_classes=self.num_classes, pipeline=pipeline, **options)

    def part(self, dataset: dict, part: str) -> dict:
        how = dict(per_class=1)
        if self.is_segmentation or self.row['head'] == 'multi-label':
            how = dict(file=self.write_list())
        return dict(type='LabeledSubset', part=part, dataset=dataset, **how)

    def wrapped(self, dataset: dict) -> dict:
        wrappers = {
            'plain': lambda: dataset,
            'repeated': lambda: dict(type='RepeatDataset', times=2, dataset=dataset),
            'joined': lambda: dict(type='ConcatDataset', datasets=[dataset, dict(dataset, first=100)]),
            'class-balanced': lambda: dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=dataset),
            'long-tailed': lambda: dict(type='LongTailedDataset', imbalance_factor=2, dataset=dict(dataset, count=12)),
            'noisy': lambda: dict(type='NoisyLabels', rate=0.5, dataset=dataset),
            'subset': lambda: self.part(dataset, 'labeled'),
        }
        return wrappers[self.row['data']]()

    def training_data(self) -> dict:
        pack = dict(type='PackSegInputs' if self.is_segmentation else 'PackInputs')
        flip = dict(type='RandomFlip', prob=0.5)
        labeled = self.wrapped(self.images([flip, pack]))
        if not self.is_semi:
            return labeled
        light = dict(type='PhotoMetricDistortion') if self.is_segmentation else dict(type='Solarize', thr=128, prob=0.5)
        views = dict(type='MultiBranch', weak=[pack], strong1=[light, pack], strong2=[light, pack])
        unlabeled = self.images([flip, views])
        if self.row['data'] == 'subset':
            unlabeled = self.part(unlabeled, 'unlabeled')
        else:
            unlabeled.update(first=200)
        return dict(type='SemiSupervisedDataset', labeled=labeled, unlabeled=unlabeled)

    # The run.

    def metrics(self) -> list:
        geometry = [dict(type='FeatureGeometry')] if self.row['metric'] == 'geometry' else []
        kind = self.row['metric']
        if self.is_segmentation:
            name = dict(classes='ClassIoUMetric', groups='GroupIoUMetric').get(kind, 'IoUMetric')
            return [dict(type=name, iou_metrics=['mIoU']), *geometry]
        if self.row['head'] == 'multi-label' and kind in ('stock', 'classes'):
            return [dict(type='MultiLabelMetric', average=None if kind == 'classes' else 'macro', thr=0.5)]
        names = dict(groups=dict(type='GroupAccuracy', many=3, few=2, per_class=True))
        names.update(classes=dict(type='SingleLabelMetric', average=None))
        return [names.get(kind, dict(type='Accuracy', topk=(1,))), *geometry]

    def hooks(self) -> list:
        hooks = deepcopy(HOOKS[self.row['hook']])
        counts = dict(file=self.write_counts()) if self.is_segmentation else {}
        if self.row['hook'] == 'drw':
            hooks[0].update(by_epoch=self.row['loop'] == 'epochs', **counts)
        needs_counts = self.row['loss'] in COUNTED or self.row['sar'] == 'adjusted' and not self.has_baseline
        if needs_counts or self.row['metric'] == 'groups':
            hooks.append(dict(type='ClassCountsHook', **counts))
        if self.row['metric'] == 'geometry':
            hooks.append(dict(type='FeatureTapHook'))
        return [*hooks, dict(type='AnchorSteps')]

    def config(self) -> Config:
        """Return the config of a run; 3 iterations, or 2 epochs of at least 2."""
        by_epoch = self.row['loop'] == 'epochs'
        loader = dict(batch_size=4, num_workers=0)
        pack = dict(type='PackSegInputs' if self.is_segmentation else 'PackInputs')
        loop = dict(max_epochs=2) if by_epoch else dict(max_iters=3, val_interval=2)
        return Config(
            dict(
                default_scope=self.toolbox,
                model=self.model(),
                train_dataloader=dict(loader, dataset=self.training_data(), sampler=SAMPLERS[self.row['sampler']]),
                val_dataloader=dict(
                    loader,
                    dataset=self.images([pack], test_mode=True, first=50),
                    sampler=dict(type='DefaultSampler', shuffle=False),
                ),
                val_evaluator=self.metrics(),
                val_cfg=dict(type='TeacherStudentValLoop' if self.row['validation'] == 'both' else 'ValLoop'),
                train_cfg=dict(by_epoch=by_epoch, **loop),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
                param_scheduler=dict(type='LinearLR', start_factor=0.5, end=4, by_epoch=False),
                default_hooks=dict(
                    logger=dict(type='LoggerHook', interval=1),
                    checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch),
                ),
                log_processor=dict(by_epoch=by_epoch),
                log_level='ERROR',
                custom_hooks=self.hooks(),
                randomness=dict(seed=3),
            )
        )


def stock(config: Any) -> Any:
    """Return a config of a model with the stock version of each head."""
    if isinstance(config, (list, tuple)):
        return [stock(each) for each in config]
    if not isinstance(config, dict):
        return config
    found = {name: stock(value) for name, value in config.items() if name != 'anchor_head'}
    if isinstance(found.get('type'), str) and found['type'].startswith('SAR'):
        found['type'] = found['type'][len('SAR') :]
    return found
