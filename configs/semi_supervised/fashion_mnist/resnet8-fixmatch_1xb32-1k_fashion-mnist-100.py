# FixMatch: 32 labelled and 96 unlabelled images per step.
_base_ = './resnet8-supervised_1xb32-1k_fashion-mnist-100.py'
model = dict(_delete_=True, type='SemiClassifier', classifier=_base_.model, semi=dict(threshold=0.95))
labelled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=128,
    sampler=dict(_delete_=True, type='LabelledUnlabelledSampler', labelled=32, unlabelled=96),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labelled=labelled,
        unlabelled=dict(
            type='LabelledSubset',
            part='unlabelled',
            per_class=labelled.per_class,
            dataset=dict(
                type='FashionMNIST', data_root=_base_.data_root, split='train', pipeline=_base_.unlabelled_pipeline
            ),
        ),
    ),
)
del labelled
