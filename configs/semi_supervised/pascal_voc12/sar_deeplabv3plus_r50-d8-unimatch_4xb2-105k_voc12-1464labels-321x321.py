_base_ = './deeplabv3plus_r50-d8-unimatch_4xb2-105k_voc12-1464labels-321x321.py'
model = dict(segmentor=dict(decode_head=dict(type='SARDepthwiseSeparableASPPHead')))
