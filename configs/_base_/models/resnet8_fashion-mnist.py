# ResNet-8 for grey images of 28x28.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=10, mean=[72.9], std=[90.0], to_rgb=False),
    backbone=dict(type='CIFARResNet', depth=8, in_channels=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64, loss=dict(type='CrossEntropyLoss')),
)
