# ImageNet-LT by its published lists, which tools/dataset_converters/long_tailed_lists.py turns into meta/*.txt.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64.py'
data_root = 'data/imagenet_lt'
data_preprocessor = dict(num_classes=1000)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ImageNet',
        split='',
        data_root=data_root,
        ann_file='meta/train.txt',
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ImageNet',
        split='',
        data_root=data_root,
        ann_file='meta/test.txt',
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='GroupAccuracy')
test_evaluator = val_evaluator
