# UniMatch: 4 labelled and 4 unlabelled images per step.
_base_ = [
    '../../long_tailed/camvid/deeplabv3plus_r18-d8-ce_1xb8-20k_camvid-360x480.py',
    '../../_base_/methods/unimatch.py',
]
model = dict(_delete_=True, type='SemiSegmentor', segmentor=_base_.model, semi=_base_.semi)
labelled = dict(_base_.train_dataloader.dataset, ann_file='splits/8th/labelled.txt')
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='LabelledUnlabelledSampler', labelled=4, unlabelled=4),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labelled=labelled,
        unlabelled=dict(
            type='BaseSegDataset',
            metainfo=labelled['metainfo'],
            data_root=_base_.data_root,
            data_prefix=dict(img_path=labelled['data_prefix']['img_path']),
            ann_file='splits/8th/unlabelled.txt',
            pipeline=[
                *[step for step in labelled['pipeline'][:-1] if step.type != 'LoadAnnotations'],
                _base_.views,
            ],
        ),
    ),
)
del labelled
