_base_ = 'mmseg::nonlocal_net/nonlocal_r101-d8_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARNLHead'))
