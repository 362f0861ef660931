# CIFAR-10 as folders of images, <data_root>/{train,test}/<class>/*.jpg, read by the training process itself.
_base_ = './cifar10-lt.py'
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
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
        data_prefix='test',
        pipeline=[dict(type='LoadImageFromFile'), *_base_.test_pipeline],
    ),
)
test_dataloader = val_dataloader
data_preprocessor = dict(to_rgb=True)  # these are read as BGR
