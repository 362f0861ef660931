# FixMatch (Sohn et al., NeurIPS 2020): 64 labeled and 448 unlabeled images per step.
_base_ = './wrn28-2-supervised_1xb64-1024k_cifar10-40labels.py'
model = dict(_delete_=True, type='SemiClassifier', classifier=_base_.model, semi=dict(threshold=0.95))
labeled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=512,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', labeled=64, unlabeled=448),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labeled=labeled,
        unlabeled=dict(type='CIFAR10', data_root=_base_.data_root, split='train', pipeline=_base_.unlabeled_pipeline),
        labeled_among_unlabeled=True,  # as in FixMatch: the unlabeled images are all 50,000
    ),
)
del labeled
auto_scale_lr = dict(base_batch_size=512)
