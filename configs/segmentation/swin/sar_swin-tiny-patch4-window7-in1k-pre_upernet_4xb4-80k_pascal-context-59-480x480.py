_base_ = './swin-tiny-patch4-window7-in1k-pre_upernet_4xb4-80k_pascal-context-59-480x480.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARUPerHead'))
