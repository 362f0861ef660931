# UniMatch: 2 labelled and 2 unlabelled images per step and GPU; every pseudo-label counts, as published for Cityscapes.
_base_ = ['./deeplabv3plus_r50-d8-supervised_4xb2-84k_cityscapes-16th-801x801.py', '../../_base_/methods/unimatch.py']
model = dict(_delete_=True, type='SemiSegmentor', segmentor=_base_.model, semi=dict(_base_.semi, threshold=0.0))
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
            ann_file='splits/16th/unlabelled.txt',
            pipeline=[
                *[step for step in labelled.pipeline[:-1] if step.type != 'LoadAnnotations'],
                _base_.views,
            ],
        ),
    ),
)
del labelled
