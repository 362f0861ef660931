_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['sar_mm'])
model = dict(head=dict(type='SARLinearClsHead'))
