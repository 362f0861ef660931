_base_ = './resnet32-ldam-drw_1xb128-200e_cifar100-lt-if100.py'
model = dict(head=dict(type='SARNormedLinearClsHead'))
