_base_ = './fcn_unet-ce_1xb8-600iter_camvid-180x240.py'
model = dict(decode_head=dict(type='SARFCNHead'))
