# WRN-28-2, CIFAR-10 with a few labeled images of each class, and the schedule of FixMatch: 2 ** 20 steps.
_base_ = 'mmpretrain::_base_/default_runtime.py'
weak = [
    dict(type='RandomCrop', crop_size=32, padding=4, padding_mode='reflect'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
train_pipeline = [*weak, dict(type='PackInputs')]
# FixMatch's RandAugment: two operations of random strength, each left out half of the time; then a square is cut out.
strong = [
    *weak,
    dict(
        type='RandAugment',
        num_policies=2,
        magnitude_level=10,
        magnitude_std='inf',
        hparams=dict(pad_val=[125, 123, 114]),
        policies=[
            dict(type='AutoContrast'),
            dict(type='Equalize'),
            dict(type='Brightness', magnitude_range=(0, 0.9)),
            dict(type='ColorTransform', magnitude_range=(0, 0.9)),
            dict(type='Contrast', magnitude_range=(0, 0.9)),
            dict(type='Sharpness', magnitude_range=(0, 0.9)),
            dict(type='Posterize', magnitude_range=(8, 4)),
            dict(type='Solarize', magnitude_range=(256, 0)),
            dict(type='Rotate', magnitude_range=(0, 30)),
            dict(type='Shear', magnitude_range=(0, 0.3), direction='horizontal'),
            dict(type='Shear', magnitude_range=(0, 0.3), direction='vertical'),
            dict(type='Translate', magnitude_range=(0, 0.3), direction='horizontal'),
            dict(type='Translate', magnitude_range=(0, 0.3), direction='vertical'),
        ],
    ),
    dict(type='Cutout', shape=16, pad_val=[125, 123, 114], prob=1.0),
]
unlabeled_pipeline = [
    dict(type='MultiBranch', weak=train_pipeline, strong=[*strong, dict(type='PackInputs')]),
]
test_pipeline = [dict(type='PackInputs')]
data_root = 'data/cifar10'
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='LabeledSubset',
        part='labeled',
        per_class=4,
        dataset=dict(type='CIFAR10', data_root=data_root, split='train', pipeline=train_pipeline),
    ),
)
val_dataloader = dict(
    batch_size=500,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CIFAR10', data_root=data_root, split='test', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=10, mean=[125.307, 122.961, 113.8575], std=[62.993, 62.089, 66.705], to_rgb=False
    ),
    backbone=dict(type='WideResNet', depth=28, widen_factor=2),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='Xavier', layer='Linear', distribution='normal'),  # as in FixMatch's code
    ),
)

max_iters = 2**20
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=5e-4, nesterov=True),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0),  # as FixMatch decays only kernels
)
# lr * cos(7 pi t / (16 T)): a cosine from lr to -lr that is left after 7/16 of its way.
param_scheduler = dict(type='CosineAnnealingLR', T_max=max_iters * 16 // 7, eta_min_ratio=-1, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=2**14)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
# What is tested and saved is a moving average of the weights; labels come from the weights themselves.
custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.001)]
default_hooks = dict(
    logger=dict(interval=100, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=2**14, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
