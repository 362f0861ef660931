# A short schedule for a CPU, on CIFAR-10-LT as folders of images, data/cifar10_lt100/{train,test}/<class>/*.jpg.
_base_ = './resnet32-ce_1xb128-200e_cifar10-lt100.py'
data_root = 'data/cifar10_lt100'
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root=data_root,
        data_prefix='train',
        pipeline=[dict(type='LoadImageFromFile'), *_base_.train_pipeline],
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root=data_root,
        data_prefix='test',
        pipeline=[dict(type='LoadImageFromFile'), *_base_.test_pipeline],
    ),
)
test_dataloader = val_dataloader
data_preprocessor = dict(to_rgb=True)  # these are read as BGR
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=5, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=2))
