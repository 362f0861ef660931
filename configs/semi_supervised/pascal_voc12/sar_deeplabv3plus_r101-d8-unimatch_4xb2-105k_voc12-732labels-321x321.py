_base_ = './deeplabv3plus_r50-d8-unimatch_4xb2-105k_voc12-732labels-321x321.py'
model = dict(
    segmentor=dict(
        pretrained='open-mmlab://resnet101_v1c',
        backbone=dict(depth=101),
        decode_head=dict(type='SARDepthwiseSeparableASPPHead'),
    )
)
