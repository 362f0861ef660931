_base_ = './resnext50-32x4d-ce_4xb64-90e_imagenet-lt.py'
model = dict(head=dict(type='SARLinearClsHead', loss=dict(type='LogitAdjustedLoss')))
