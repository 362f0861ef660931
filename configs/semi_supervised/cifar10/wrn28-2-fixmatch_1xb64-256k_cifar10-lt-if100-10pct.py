# FixMatch, its pseudo-labels aligned with the shares of the classes among the labeled images.
_base_ = './wrn28-2-supervised_1xb64-256k_cifar10-lt-if100-10pct.py'
model = dict(
    _delete_=True,
    type='SemiClassifier',
    classifier=_base_.model,
    semi=dict(threshold=0.95, distribution_alignment=dict(target='labeled')),
)
labeled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=512,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', labeled=64, unlabeled=448),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labeled=labeled,
        unlabeled=dict(
            type='LongTailedDataset',
            imbalance_factor=labeled.dataset.imbalance_factor,
            dataset=dict(type='CIFAR10', data_root=_base_.data_root, split='train', pipeline=_base_.unlabeled_pipeline),
        ),
        labeled_among_unlabeled=True,
    ),
)
del labeled
auto_scale_lr = dict(base_batch_size=512)
