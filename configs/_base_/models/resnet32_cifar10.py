# The ResNet-32 of the recipe of Cao et al. (2019) for 10 classes.
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
