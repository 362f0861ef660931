# WRN-28-2 on 4 labelled images of each class, and on no others.
_base_ = '../_base_/cifar10.py'
custom_imports = dict(imports=['sar_mm'])
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
