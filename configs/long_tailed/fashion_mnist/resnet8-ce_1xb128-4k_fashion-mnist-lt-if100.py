# Trained to the end: ten times as long as the 400iter configs, about 100 passes over the training images.
# It is validated on 500 training images of each class that the long-tailed ones are not drawn from; settings are chosen
# by them, and the test set is for the end.
_base_ = [
    '../../_base_/datasets/fashion-mnist-lt.py',
    '../../_base_/models/resnet8_fashion-mnist.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['sar_mm'])
train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='LabeledSubset',
            part='unlabeled',
            per_class=500,
            dataset=dict(
                type='FashionMNIST', data_root=_base_.data_root, split='train', pipeline=_base_.train_pipeline
            ),
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='LabeledSubset',
        part='labeled',
        per_class=500,
        dataset=dict(type='FashionMNIST', data_root=_base_.data_root, split='train', pipeline=_base_.test_pipeline),
    ),
)
val_evaluator = [_base_.val_evaluator, dict(type='FeatureGeometry')]
custom_hooks = [dict(type='ClassCountsHook'), dict(type='FeatureTapHook')]

max_iters = 4000
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type='CosineAnnealingLR', T_max=max_iters, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=500)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(
    logger=dict(interval=100, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
