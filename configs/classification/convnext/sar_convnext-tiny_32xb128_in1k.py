_base_ = 'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(head=dict(type='SARLinearClsHead'))
