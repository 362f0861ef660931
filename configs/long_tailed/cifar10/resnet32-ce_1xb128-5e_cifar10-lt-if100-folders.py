# A short schedule for a CPU, on CIFAR-10-LT as folders of images, data/cifar10_lt100/{train,test}/<class>/*.jpg.
_base_ = [
    '../../_base_/datasets/cifar10-folders.py',
    '../../_base_/models/resnet32_cifar10.py',
    '../../_base_/schedules/cifar_200e.py',
]
custom_imports = dict(imports=['sar_mm'])
data_root = 'data/cifar10_lt100'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
custom_hooks = [dict(type='ClassCountsHook')]
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=5, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=2))
