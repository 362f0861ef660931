_base_ = './resnext50-32x4d-ldam-drw_4xb64-90e_imagenet-lt.py'
model = dict(head=dict(type='SARNormedLinearClsHead'))
