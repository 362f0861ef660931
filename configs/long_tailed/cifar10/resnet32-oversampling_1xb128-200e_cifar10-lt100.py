# Repeat-factor sampling with mmengine's own ClassBalancedDataset: images of classes rarer than 10 % are repeated.
_base_ = './resnet32-ce_1xb128-200e_cifar10-lt100.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True, type='ClassBalancedDataset', oversample_thr=0.1, dataset=_base_.train_dataloader.dataset
    )
)
custom_hooks = []  # it has no counts of its own, and cross-entropy asks for none
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
