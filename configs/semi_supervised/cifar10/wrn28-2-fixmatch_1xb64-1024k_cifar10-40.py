# FixMatch (Sohn et al., NeurIPS 2020): 64 labelled and 448 unlabelled images per step.
_base_ = './wrn28-2-supervised_1xb64-1024k_cifar10-40.py'
model = dict(_delete_=True, type='SemiClassifier', classifier=_base_.model, semi=dict(threshold=0.95))
labelled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=512,
    sampler=dict(_delete_=True, type='LabelledUnlabelledSampler', labelled=64, unlabelled=448),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labelled=labelled,
        unlabelled=dict(type='CIFAR10', data_root=_base_.data_root, split='train', pipeline=_base_.unlabelled_pipeline),
        labelled_among_unlabelled=True,  # as in FixMatch: the unlabelled images are all 50,000
    ),
)
del labelled
auto_scale_lr = dict(base_batch_size=512)
