_base_ = 'mmseg::ocrnet/ocrnet_hr48_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=[_base_.model.decode_head[0], dict(_base_.model.decode_head[1], type='SAROCRHead')])
