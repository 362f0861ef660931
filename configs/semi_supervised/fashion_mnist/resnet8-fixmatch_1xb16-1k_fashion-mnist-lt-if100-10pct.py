# FixMatch, its pseudo-labels aligned with the shares of the classes among the labeled images.
_base_ = './resnet8-supervised_1xb16-1k_fashion-mnist-lt-if100-10pct.py'
model = dict(
    _delete_=True,
    type='SemiClassifier',
    classifier=_base_.model,
    semi=dict(
        threshold=0.9,
        teacher=dict(momentum=0.01),
        distribution_alignment=dict(momentum=0.99, target='labeled'),
        joint_forward=False,
    ),
)
labeled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=128,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', labeled=16, unlabeled=112),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labeled=labeled,
        unlabeled=dict(
            type='LabeledSubset',
            part='unlabeled',
            fraction=labeled.fraction,
            dataset=dict(
                type='LongTailedDataset',
                imbalance_factor=labeled.dataset.imbalance_factor,
                max_per_class=labeled.dataset.max_per_class,
                dataset=dict(
                    type='FashionMNIST', data_root=_base_.data_root, split='train', pipeline=_base_.unlabeled_pipeline
                ),
            ),
        ),
    ),
)
del labeled
auto_scale_lr = dict(base_batch_size=128)
