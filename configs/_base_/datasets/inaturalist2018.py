# iNaturalist 2018 by its published lists, which tools/dataset_converters/long_tailed_lists.py turns into meta/*.txt.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64.py'
data_root = 'data/inaturalist2018'
data_preprocessor = dict(num_classes=8142)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        metainfo=dict(classes=[str(k) for k in range(8142)]),
        data_root=data_root,
        ann_file='meta/train.txt',
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        metainfo=dict(classes=[str(k) for k in range(8142)]),
        data_root=data_root,
        ann_file='meta/val.txt',
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='GroupAccuracy')
test_evaluator = val_evaluator
