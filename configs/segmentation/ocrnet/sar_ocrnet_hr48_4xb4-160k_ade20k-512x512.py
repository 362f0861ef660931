_base_ = 'mmseg::ocrnet/ocrnet_hr48_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=[_base_.model.decode_head[0], dict(_base_.model.decode_head[1], type='SAROCRHead')])
