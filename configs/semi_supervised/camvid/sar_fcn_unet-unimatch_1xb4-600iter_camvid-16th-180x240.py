_base_ = './fcn_unet-unimatch_1xb4-600iter_camvid-8th-180x240.py'
model = dict(segmentor=dict(decode_head=dict(type='SARFCNHead')))
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/16th/labeled.txt'),
        unlabeled=dict(ann_file='splits/16th/unlabeled.txt'),
    )
)
