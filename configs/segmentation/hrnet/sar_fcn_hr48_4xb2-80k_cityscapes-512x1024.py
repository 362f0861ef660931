_base_ = 'mmseg::hrnet/fcn_hr48_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARFCNHead'))
