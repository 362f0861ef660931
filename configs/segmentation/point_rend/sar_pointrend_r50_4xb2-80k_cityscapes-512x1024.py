_base_ = 'mmseg::point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(
    decode_head=[
        dict(_base_.model.decode_head[0], type='SARFPNHead'),
        dict(_base_.model.decode_head[1], type='SARPointHead'),
    ]
)
