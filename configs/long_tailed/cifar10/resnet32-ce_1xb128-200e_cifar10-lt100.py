# The recipe of Cao et al. (2019): ResNet-32, 200 epochs, rate 0.1 after 5 epochs, a hundredth of it at 160 and at 180.
_base_ = ['../_base_/cifar10-lt100.py', '../_base_/cifar_200e.py']
custom_imports = dict(imports=['sar_mm'])
model = dict(
    type='ImageClassifier',
    backbone=dict(type='CIFARResNet', depth=32),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='Kaiming', layer='Linear', mode='fan_in'),  # as in the code of the paper
    ),
)
custom_hooks = [dict(type='ClassCountsHook')]
