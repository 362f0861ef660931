_base_ = './resnet18_1xb64-300iter_digits-lt.py'

custom_imports = dict(imports=['sar_mm'])
model = dict(head=dict(type='SARLinearClsHead'))
