# FixMatch with a mean teacher and distribution alignment; 16 labeled and 112 unlabeled images per step.
_base_ = './resnet8-supervised_1xb16-1k_fashion-mnist-100labels.py'
model = dict(
    _delete_=True,
    type='SemiClassifier',
    classifier=_base_.model,
    semi=dict(
        threshold=0.9,
        teacher=dict(momentum=0.01),
        distribution_alignment=dict(momentum=0.01),
        joint_forward=False,  # with grey squares in them, strong views are far from the images of the test
    ),
)
train_dataloader = dict(
    batch_size=128,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', labeled=16, unlabeled=112),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labeled=_base_.train_dataloader.dataset,
        unlabeled=dict(part='unlabeled', dataset=dict(pipeline=_base_.unlabeled_pipeline)),
    ),
)
auto_scale_lr = dict(base_batch_size=128)
