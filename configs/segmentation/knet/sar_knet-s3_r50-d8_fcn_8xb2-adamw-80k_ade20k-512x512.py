_base_ = 'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARIterativeDecodeHead'))
