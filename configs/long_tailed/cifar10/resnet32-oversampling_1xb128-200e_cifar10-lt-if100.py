# Repeat-factor sampling with mmengine's own ClassBalancedDataset: images of classes rarer than 10 % are repeated.
_base_ = './resnet32-ce_1xb128-200e_cifar10-lt-if100.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True, type='ClassBalancedDataset', oversample_thr=0.1, dataset=_base_.train_dataloader.dataset
    )
)
