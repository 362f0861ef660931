_base_ = './resnet50-ce_4xb64-90e_imagenet-lt.py'
model = dict(head=dict(loss=dict(type='LogitAdjustedLoss')))
