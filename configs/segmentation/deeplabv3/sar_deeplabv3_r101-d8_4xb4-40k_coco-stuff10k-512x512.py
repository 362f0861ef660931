_base_ = 'mmseg::deeplabv3/deeplabv3_r101-d8_4xb4-40k_coco-stuff10k-512x512.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARASPPHead'))
