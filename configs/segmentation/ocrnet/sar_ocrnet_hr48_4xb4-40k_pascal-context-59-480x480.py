_base_ = './ocrnet_hr48_4xb4-40k_pascal-context-59-480x480.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=[_base_.model.decode_head[0], dict(_base_.model.decode_head[1], type='SAROCRHead')])
