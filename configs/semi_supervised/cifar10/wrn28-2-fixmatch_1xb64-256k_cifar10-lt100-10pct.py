# FixMatch, its pseudo-labels aligned with the shares of the classes among the labelled images.
_base_ = './wrn28-2-supervised_1xb64-256k_cifar10-lt100-10pct.py'
model = dict(
    _delete_=True,
    type='SemiClassifier',
    classifier=_base_.model,
    semi=dict(threshold=0.95, distribution_alignment=dict(target='labelled')),
)
labelled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=512,
    sampler=dict(_delete_=True, type='LabelledUnlabelledSampler', labelled=64, unlabelled=448),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labelled=labelled,
        unlabelled=dict(
            type='LongTailedDataset',
            imbalance_factor=labelled.dataset.imbalance_factor,
            dataset=dict(
                type='CIFAR10', data_root=_base_.data_root, split='train', pipeline=_base_.unlabelled_pipeline
            ),
        ),
        labelled_among_unlabelled=True,
    ),
)
del labelled
auto_scale_lr = dict(base_batch_size=512)
