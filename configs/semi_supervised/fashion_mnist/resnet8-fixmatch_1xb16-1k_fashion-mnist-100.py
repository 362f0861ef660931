# FixMatch with a mean teacher and distribution alignment; 16 labelled and 112 unlabelled images per step.
_base_ = './resnet8-supervised_1xb16-1k_fashion-mnist-100.py'
model = dict(
    _delete_=True,
    type='SemiClassifier',
    classifier=_base_.model,
    semi=dict(
        threshold=0.9,
        teacher=dict(momentum=0.01),
        distribution_alignment=dict(momentum=0.99),
        joint_forward=False,  # with grey squares in them, strong views are far from the images of the test
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
            per_class=labelled.per_class,
            dataset=dict(
                type='FashionMNIST', data_root=_base_.data_root, split='train', pipeline=_base_.unlabelled_pipeline
            ),
        ),
    ),
)
del labelled
auto_scale_lr = dict(base_batch_size=128)
