_base_ = './segformer_mit-b5_4xb4-80k_pascal-context-59-480x480.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(decode_head=dict(type='SARSegformerHead'))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(anchor_head=dict(lr_mult=1.0))))  # not that of the head
