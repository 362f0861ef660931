_base_ = './resnet8-ce_1xb128-400iter_fashion-mnist-lt-if100.py'
model = dict(head=dict(type='SARLinearClsHead'))
