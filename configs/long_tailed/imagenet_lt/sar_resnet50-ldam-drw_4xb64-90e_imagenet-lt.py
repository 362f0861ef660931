_base_ = './resnet50-ldam-drw_4xb64-90e_imagenet-lt.py'
model = dict(head=dict(type='SARNormedLinearClsHead'))
