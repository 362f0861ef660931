_base_ = 'mmseg::segformer/segformer_mit-b5_8xb1-160k_cityscapes-1024x1024.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARSegformerHead'))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(anchor_head=dict(lr_mult=1.0))))  # not that of the head
