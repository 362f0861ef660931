# Repeat-factor sampling with mmengine's own ClassBalancedDataset: images of classes rarer than 10 % are repeated.
_base_ = './resnet32-ce_1xb128-200e_cifar10-lt100.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True, type='ClassBalancedDataset', oversample_thr=0.1, dataset=_base_.train_dataloader.dataset
    )
)
# Groups by the images there are, not by those shown.
val_evaluator = dict(class_counts=[int(5000 / 100 ** (k / 9)) for k in range(10)])
test_evaluator = val_evaluator
