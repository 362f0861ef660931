_base_ = 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(head=dict(type='SARLinearClsHead'))
