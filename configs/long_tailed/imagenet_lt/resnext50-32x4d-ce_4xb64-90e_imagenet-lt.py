_base_ = './resnet50-ce_4xb64-90e_imagenet-lt.py'
model = dict(backbone=dict(type='ResNeXt', groups=32, width_per_group=4))
