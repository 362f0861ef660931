_base_ = './deeplabv3plus_r50-d8-unimatch_4xb2-105k_voc12-92labels-321x321.py'
train_dataloader = dict(
    dataset=dict(
        labeled=dict(ann_file='splits/183/labeled.txt'),
        unlabeled=dict(ann_file='splits/183/unlabeled.txt'),
    )
)
