_base_ = './deeplabv3plus_r18-d8-unimatch_1xb4-20k_camvid-16th-360x480.py'
model = dict(segmentor=dict(decode_head=dict(type='SARDepthwiseSeparableASPPHead')))
