# Trained to the end: ten times as long as the 400iter configs, about 100 passes over the training images.
# It is validated on 500 training images of each class that the long-tailed ones are not drawn from; settings are chosen
# by them, and the test set is for the end.
_base_ = './resnet8-ce_1xb128-400iter_fashion-mnist-lt100.py'
train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='LabelledSubset',
            part='unlabelled',
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
        type='LabelledSubset',
        part='labelled',
        per_class=500,
        dataset=dict(type='FashionMNIST', data_root=_base_.data_root, split='train', pipeline=_base_.test_pipeline),
    ),
)
val_evaluator = [_base_.val_evaluator, dict(type='FeatureGeometry')]
custom_hooks = [dict(type='ClassCountsHook'), dict(type='FeatureTapHook')]

max_iters = 4000
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters, val_interval=500)
default_hooks = dict(logger=dict(interval=100), checkpoint=dict(interval=500))
