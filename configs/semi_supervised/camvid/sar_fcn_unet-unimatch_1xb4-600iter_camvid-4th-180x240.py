_base_ = './fcn_unet-unimatch_1xb4-600iter_camvid-4th-180x240.py'
model = dict(segmentor=dict(decode_head=dict(type='SARFCNHead')))
