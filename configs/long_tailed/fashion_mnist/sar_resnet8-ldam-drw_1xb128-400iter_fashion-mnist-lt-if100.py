_base_ = './resnet8-ldam-drw_1xb128-400iter_fashion-mnist-lt-if100.py'
model = dict(head=dict(type='SARNormedLinearClsHead'))
