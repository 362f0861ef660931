# CIFAR-10 at imbalance factor 100, 10 % of every class labeled: 1,241 images, 500 of the first class, 5 of the last.
_base_ = '../../_base_/datasets/cifar10-semi.py'
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
            dataset=dict(type='CIFAR10', data_root=_base_.data_root, split='train', pipeline=_base_.train_pipeline),
        ),
    )
)
val_evaluator = dict(_delete_=True, type='GroupAccuracy')  # groups of classes by their labeled images
test_evaluator = val_evaluator
custom_hooks = [*_base_.custom_hooks, dict(type='ClassCountsHook')]
max_iters = 2**18
param_scheduler = dict(T_max=max_iters * 16 // 7)
train_cfg = dict(max_iters=max_iters)
