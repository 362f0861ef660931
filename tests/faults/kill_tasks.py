"""The tiny trainings that are killed: configs on top of those of the quickstart, with random everything."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / 'configs' / 'quickstart'
ITERATIONS = 80
VALIDATION = 4  # iterations between two validations

# Random everything: crops, flips and colours in the data, dropout or mixup in the model, shuffling in the sampler.
SEGMENTATION = f"""
_base_ = {str(QUICKSTART / 'sar_fcn_unet_1xb16-400iter_digit-scenes-64x64.py')!r}
custom_imports = dict(imports=['sar_mm', 'probe'])
anchor_head = dict(gate_threshold=0.15, gate_per_class=True, momentum=0.9)
model = dict(
    backbone=dict(base_channels=4),
    decode_head=dict(
        in_channels=4,
        channels=8,
        dropout_ratio=0.2,
        loss_decode=dict(class_weight=[1.0] * 10 + [0.1]),
        anchor_head=anchor_head,
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(48, 48), cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline, indices=30))
val_dataloader = dict(batch_size=1, dataset=dict(indices=8))
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_iters={ITERATIONS}, val_interval={VALIDATION})
param_scheduler = dict(end={ITERATIONS})
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=3, save_best='mIoU')
)
custom_hooks = [dict(type='EMAHook', momentum=0.1), dict(type='Probe', ballast=6, pause=0.02)]
"""
# By epochs: four iterations in each, one checkpoint and one validation after it.
CLASSIFICATION = f"""
_base_ = {str(QUICKSTART / 'sar_resnet18_1xb64-300iter_digits-lt.py')!r}
custom_imports = dict(imports=['sar_mm', 'probe'])
anchor_head = dict(gate_threshold=0.15, gate_per_class=True, momentum=0.9)
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(
        type='SARStackedLinearClsHead', in_channels=32, mid_channels=[16], dropout_rate=0.2, anchor_head=anchor_head
    ),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.2)),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=20),
    dict(type='RandomCrop', crop_size=16),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(data_prefix='train_balanced', pipeline=train_pipeline, indices=list(range(0, 1184, 37))),
)
val_dataloader = dict(batch_size=4, dataset=dict(indices=list(range(0, 540, 18))))
optim_wrapper = dict(optimizer=dict(momentum=0.9))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=10),
    dict(type='MultiStepLR', by_epoch=True, milestones=[6, 14], gamma=0.3),
]
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs={ITERATIONS // VALIDATION}, val_interval=1)
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(by_epoch=True, interval=1, max_keep_ckpts=3, save_best='accuracy/top1'),
)
log_processor = dict(by_epoch=True)
custom_hooks = [dict(type='Probe', ballast=6, pause=0.02)]
"""
# Of a teacher, alignment and adaptive thresholds, with an unlabeled stream of its own.
SEMI = f"""
_base_ = {str(QUICKSTART / 'sar_resnet18-fixmatch_1xb20-600iter_digits-40labels.py')!r}
custom_imports = dict(imports=['sar_mm', 'probe'])
anchor_head = dict(gate_threshold=0.15, gate_per_class=True, momentum=0.9)
model = dict(
    classifier=dict(
        backbone=dict(stem_channels=8, base_channels=8),
        head=dict(in_channels=32, anchor_head=anchor_head),
    ),
    semi=dict(threshold=0.15, warmup_iters=3),
)
train_dataloader = dict(batch_size=12, sampler=dict(labeled=4, unlabeled=8))
val_dataloader = dict(batch_size=4, dataset=dict(indices=list(range(0, 540, 18))))
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_iters={ITERATIONS}, val_interval={VALIDATION})
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=3, save_best='auto')
)
custom_hooks = [dict(type='Probe', ballast=6, pause=0.02)]
"""
TASKS = dict(segmentation=SEGMENTATION, classification=CLASSIFICATION, semi=SEMI)
