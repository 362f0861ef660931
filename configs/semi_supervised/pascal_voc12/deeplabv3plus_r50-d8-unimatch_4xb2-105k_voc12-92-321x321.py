# UniMatch: 2 labelled and 2 unlabelled images per step and GPU. Unlabelled are the others of the 10,582 in trainaug.
_base_ = ['./deeplabv3plus_r50-d8-supervised_4xb2-105k_voc12-92-321x321.py', '../../_base_/methods/unimatch.py']
model = dict(_delete_=True, type='SemiSegmentor', segmentor=_base_.model, semi=_base_.semi)
labelled = _base_.train_dataloader.dataset
train_dataloader = dict(
    batch_size=4,
    sampler=dict(_delete_=True, type='LabelledUnlabelledSampler', labelled=2, unlabelled=2),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labelled=labelled,
        unlabelled=dict(
            type=_base_.dataset_type,
            data_root=_base_.data_root,
            data_prefix=dict(img_path=labelled.data_prefix.img_path),
            ann_file='splits/92/unlabelled.txt',
            pipeline=[
                *[step for step in labelled.pipeline[:-1] if step.type != 'LoadAnnotations'],
                _base_.views,
            ],
        ),
    ),
)
del labelled
