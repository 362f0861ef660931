_base_ = './resnet8_1xb128-4k_fashion-mnist-sym40.py'
model = dict(head=dict(type='SARLinearClsHead'))
