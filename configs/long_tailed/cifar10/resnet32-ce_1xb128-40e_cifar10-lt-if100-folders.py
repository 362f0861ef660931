# The recipe of 200 epochs scaled to 40, on CIFAR-10 as folders of images, data/cifar10_images/{train,test}/<class>/*.
_base_ = [
    '../../_base_/datasets/cifar10-folders.py',
    '../../_base_/models/resnet32_cifar10.py',
    '../../_base_/schedules/cifar_200e.py',
]
custom_imports = dict(imports=['sar_mm'])
data_root = 'data/cifar10_images'
images = _base_.train_dataloader.dataset
images.data_root = data_root
train_dataloader = dict(
    dataset=dict(_delete_=True, type='LongTailedDataset', imbalance_factor=100, dataset=images),
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=0.2, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', by_epoch=True, milestones=[32, 36], gamma=0.01),
]
custom_hooks = [dict(type='ClassCountsHook')]
train_cfg = dict(max_epochs=40, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=2))
del images
