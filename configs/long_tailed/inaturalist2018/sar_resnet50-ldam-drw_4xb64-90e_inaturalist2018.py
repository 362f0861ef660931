_base_ = './resnet50-ldam-drw_4xb64-90e_inaturalist2018.py'
model = dict(head=dict(type='SARNormedLinearClsHead'))
