_base_ = 'mmseg::hrnet/fcn_hr48_4xb4-40k_pascal-context-59-480x480.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARFCNHead'))
