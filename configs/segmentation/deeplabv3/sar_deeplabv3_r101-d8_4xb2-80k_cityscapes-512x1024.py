_base_ = 'mmseg::deeplabv3/deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARASPPHead'))
