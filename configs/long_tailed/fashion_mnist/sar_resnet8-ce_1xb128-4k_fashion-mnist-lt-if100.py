_base_ = './resnet8-ce_1xb128-4k_fashion-mnist-lt-if100.py'
model = dict(head=dict(type='SARLinearClsHead'))
