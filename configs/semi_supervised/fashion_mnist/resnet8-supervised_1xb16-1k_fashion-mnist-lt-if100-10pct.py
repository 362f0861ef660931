# Fashion-MNIST at imbalance factor 100, 10 % of every class labeled: 200 images of the first class, 2 of the last.
_base_ = [
    '../../_base_/datasets/fashion-mnist-semi.py',
    '../../_base_/models/resnet8_fashion-mnist.py',
    '../../_base_/schedules/fashion-mnist-semi_1k.py',
]
custom_imports = dict(imports=['sar_mm'])
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='LabeledSubset',
        part='labeled',
        fraction=0.1,
        dataset=dict(
            type='LongTailedDataset',
            imbalance_factor=100,
            max_per_class=2000,
            dataset=dict(
                type='FashionMNIST', data_root=_base_.data_root, split='train', pipeline=_base_.train_pipeline
            ),
        ),
    ),
)
val_evaluator = dict(_delete_=True, type='GroupAccuracy', many=50, few=10)  # by their labeled images
test_evaluator = val_evaluator
custom_hooks = [dict(type='ClassCountsHook')]
