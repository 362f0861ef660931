# The recipe of 200 epochs scaled to 40, on CIFAR-10 as folders of images, data/cifar10_images/{train,test}/<class>/*.
_base_ = './resnet32-ce_1xb128-5e_cifar10-lt100-folders.py'
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
train_cfg = dict(max_epochs=40, val_interval=10)
del images
