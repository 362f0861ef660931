# 500 training images of each class, as many in all as the long-tailed ones are, of which 20 % have another label.
_base_ = '../../long_tailed/fashion_mnist/resnet8-ce_1xb128-4k_fashion-mnist-lt-if100.py'
data = _base_.train_dataloader.dataset
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='NoisyLabels',
        rate=0.2,
        dataset=dict(type='LongTailedDataset', imbalance_factor=1, max_per_class=500, dataset=data.dataset),
    ),
)
val_evaluator = dict(_delete_=True, type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
custom_hooks = []
del data
