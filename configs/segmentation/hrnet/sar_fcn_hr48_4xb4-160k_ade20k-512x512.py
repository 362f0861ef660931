_base_ = 'mmseg::hrnet/fcn_hr48_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARFCNHead'))
