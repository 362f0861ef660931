# UniMatch: 2 labeled and 2 unlabeled images per step and GPU; every pseudo-label counts, as published for Cityscapes.
_base_ = ['./deeplabv3plus_r50-d8-supervised_4xb2-84k_cityscapes-16th-801x801.py', '../../_base_/methods/unimatch.py']
model = dict(_delete_=True, type='SemiSegmentor', segmentor=_base_.model, semi=dict(_base_.semi, threshold=0.0))
labeled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=4,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', labeled=2, unlabeled=2),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labeled=labeled,
        unlabeled=dict(
            ann_file='splits/16th/unlabeled.txt',
            pipeline=[*[step for step in labeled.pipeline[:-1] if step.type != 'LoadAnnotations'], _base_.views],
        ),
    ),
)
del labeled
