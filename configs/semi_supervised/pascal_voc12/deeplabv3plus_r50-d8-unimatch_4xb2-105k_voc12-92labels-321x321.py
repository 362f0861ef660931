# UniMatch: 2 labeled and 2 unlabeled images per step and GPU. Unlabeled are the others of the 10,582 in trainaug.
_base_ = ['./deeplabv3plus_r50-d8-supervised_4xb2-105k_voc12-92labels-321x321.py', '../../_base_/methods/unimatch.py']
model = dict(_delete_=True, type='SemiSegmentor', segmentor=_base_.model, semi=_base_.semi)
labeled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=4,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', labeled=2, unlabeled=2),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labeled=labeled,
        unlabeled=dict(
            ann_file='splits/92/unlabeled.txt',
            pipeline=[*[step for step in labeled.pipeline[:-1] if step.type != 'LoadAnnotations'], _base_.views],
        ),
    ),
)
del labeled
