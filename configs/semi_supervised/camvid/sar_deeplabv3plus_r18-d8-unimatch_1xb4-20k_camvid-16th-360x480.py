_base_ = './deeplabv3plus_r18-d8-unimatch_1xb4-20k_camvid-8th-360x480.py'
model = dict(segmentor=dict(decode_head=dict(type='SARDepthwiseSeparableASPPHead')))
train_dataloader = dict(
    dataset=dict(
        labelled=dict(ann_file='splits/16th/labelled.txt'),
        unlabelled=dict(ann_file='splits/16th/unlabelled.txt'),
    )
)
