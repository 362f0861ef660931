_base_ = './deeplabv3plus_r101-d8-unimatch_4xb2-84k_cityscapes-4th-801x801.py'
model = dict(segmentor=dict(decode_head=dict(type='SARDepthwiseSeparableASPPHead')))
