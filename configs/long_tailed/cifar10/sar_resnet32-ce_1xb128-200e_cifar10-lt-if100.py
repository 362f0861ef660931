_base_ = './resnet32-ce_1xb128-200e_cifar10-lt-if100.py'
model = dict(head=dict(type='SARLinearClsHead'))
