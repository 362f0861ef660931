_base_ = './fcn_unet_1xb16-400iter_digit-scenes-64x64.py'

custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARFCNHead'))
