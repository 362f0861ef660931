# UniMatch: 4 labeled and 4 unlabeled images per step.
_base_ = [
    '../../long_tailed/camvid/fcn_unet-ce_1xb8-600iter_camvid-180x240.py',
    '../../_base_/methods/unimatch.py',
]
model = dict(_delete_=True, type='SemiSegmentor', segmentor=_base_.model, semi=_base_.semi)
labeled = dict(_base_.train_dataloader.dataset, ann_file='splits/8th/labeled.txt')
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', labeled=4, unlabeled=4),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labeled=labeled,
        unlabeled=dict(
            ann_file='splits/8th/unlabeled.txt',
            pipeline=[*[step for step in labeled['pipeline'][:-1] if step.type != 'LoadAnnotations'], _base_.views],
        ),
    ),
)
del labeled
