_base_ = './resnet50-la_4xb64-90e_inaturalist2018.py'
model = dict(head=dict(type='SARLinearClsHead'))
