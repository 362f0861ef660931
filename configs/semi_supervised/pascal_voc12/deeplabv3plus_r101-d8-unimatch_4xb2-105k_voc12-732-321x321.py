_base_ = './deeplabv3plus_r101-d8-unimatch_4xb2-105k_voc12-92-321x321.py'
train_dataloader = dict(
    dataset=dict(
        labelled=dict(ann_file='splits/732/labelled.txt'),
        unlabelled=dict(ann_file='splits/732/unlabelled.txt'),
    )
)
