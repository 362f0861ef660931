_base_ = './nonlocal_r101-d8_4xb4-40k_pascal-context-59-480x480.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARNLHead'))
