# The recipe of 200 epochs scaled to 40, on CIFAR-10 as folders of images, data/cifar10_images/{train,test}/<class>/*.
_base_ = './resnet32-ce_1xb128-200e_cifar10-lt100.py'
data_root = 'data/cifar10_images'
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='CustomDataset',
            data_root=data_root,
            data_prefix='train',
            pipeline=[dict(type='LoadImageFromFile'), *_base_.train_pipeline],
        ),
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
    dict(type='LinearLR', start_factor=0.2, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', by_epoch=True, milestones=[32, 36], gamma=0.01),
]
train_cfg = dict(max_epochs=40, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=2))
