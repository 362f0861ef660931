_base_ = ['../../_base_/datasets/inaturalist2018.py', 'mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['sar_mm'])
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=50, num_stages=4, out_indices=(3,), style='pytorch'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=8142, in_channels=2048, loss=dict(type='CrossEntropyLoss')),
)
custom_hooks = [dict(type='ClassCountsHook')]

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='CosineAnnealingLR', T_max=90, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=10)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)
