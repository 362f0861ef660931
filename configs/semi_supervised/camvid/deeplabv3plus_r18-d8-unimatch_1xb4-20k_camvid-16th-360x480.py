_base_ = './deeplabv3plus_r18-d8-unimatch_1xb4-20k_camvid-8th-360x480.py'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/16th/labeled.txt'),
        unlabeled=dict(ann_file='splits/16th/unlabeled.txt'),
    )
)
