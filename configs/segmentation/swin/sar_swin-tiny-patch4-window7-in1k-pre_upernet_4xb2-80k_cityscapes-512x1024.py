_base_ = './swin-tiny-patch4-window7-in1k-pre_upernet_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARUPerHead'))
