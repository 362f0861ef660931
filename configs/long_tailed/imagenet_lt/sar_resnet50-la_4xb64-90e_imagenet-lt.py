_base_ = './resnet50-la_4xb64-90e_imagenet-lt.py'
model = dict(head=dict(type='SARLinearClsHead'))
