_base_ = './resnet8-ldam-drw_1xb128-4k_fashion-mnist-lt-if100.py'
model = dict(head=dict(type='SARNormedLinearClsHead'))
