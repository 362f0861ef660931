# FixMatch, its pseudo-labels aligned with the shares of the classes among the labelled images.
_base_ = './resnet8-supervised_1xb16-1k_fashion-mnist-lt100-10pct.py'
model = dict(
    _delete_=True,
    type='SemiClassifier',
    classifier=_base_.model,
    semi=dict(
        threshold=0.9,
        teacher=dict(momentum=0.01),
        distribution_alignment=dict(momentum=0.99, target='labelled'),
        joint_forward=False,
    ),
)
labelled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=128,
    sampler=dict(_delete_=True, type='LabelledUnlabelledSampler', labelled=16, unlabelled=112),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labelled=labelled,
        unlabelled=dict(
            type='LabelledSubset',
            part='unlabelled',
            fraction=labelled.fraction,
            dataset=dict(
                type='LongTailedDataset',
                imbalance_factor=labelled.dataset.imbalance_factor,
                max_per_class=labelled.dataset.max_per_class,
                dataset=dict(
                    type='FashionMNIST', data_root=_base_.data_root, split='train', pipeline=_base_.unlabelled_pipeline
                ),
            ),
        ),
    ),
)
del labelled
auto_scale_lr = dict(base_batch_size=128)
