_base_ = './deeplabv3plus_r101-d8-unimatch_4xb2-84k_cityscapes-16th-801x801.py'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/8th/labeled.txt'),
        unlabeled=dict(ann_file='splits/8th/unlabeled.txt'),
    )
)
