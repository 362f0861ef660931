# FixMatch, its pseudo-labels aligned with the shares of the classes among the labeled images.
_base_ = './resnet8-supervised_1xb16-1k_fashion-mnist-lt-if100-10pct.py'
model = dict(
    _delete_=True,
    type='SemiClassifier',
    classifier=_base_.model,
    semi=dict(
        threshold=0.9,
        teacher=dict(momentum=0.01),
        distribution_alignment=dict(momentum=0.01, target='labeled'),
        joint_forward=False,
    ),
)
train_dataloader = dict(
    batch_size=128,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', labeled=16, unlabeled=112),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labeled=_base_.train_dataloader.dataset,
        unlabeled=dict(part='unlabeled', dataset=dict(dataset=dict(pipeline=_base_.unlabeled_pipeline))),
    ),
)
auto_scale_lr = dict(base_batch_size=128)
