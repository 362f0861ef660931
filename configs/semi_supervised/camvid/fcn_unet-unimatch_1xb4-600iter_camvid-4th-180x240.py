_base_ = './fcn_unet-unimatch_1xb4-600iter_camvid-8th-180x240.py'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/4th/labeled.txt'),
        unlabeled=dict(ann_file='splits/4th/unlabeled.txt'),
    )
)
