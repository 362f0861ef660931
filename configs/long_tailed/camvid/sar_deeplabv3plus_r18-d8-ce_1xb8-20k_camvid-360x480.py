_base_ = './deeplabv3plus_r18-d8-ce_1xb8-20k_camvid-360x480.py'
model = dict(decode_head=dict(type='SARDepthwiseSeparableASPPHead'))
