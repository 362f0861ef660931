_base_ = 'mmseg::segformer/segformer_mit-b5_8xb2-160k_ade20k-640x640.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARSegformerHead'))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(anchor_head=dict(lr_mult=1.0))))  # not that of the head
