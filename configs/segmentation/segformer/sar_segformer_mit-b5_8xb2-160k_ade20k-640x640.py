_base_ = 'mmseg::segformer/segformer_mit-b5_8xb2-160k_ade20k-640x640.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARSegformerHead'))
