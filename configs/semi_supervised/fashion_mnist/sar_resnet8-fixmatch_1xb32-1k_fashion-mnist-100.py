_base_ = './resnet8-fixmatch_1xb32-1k_fashion-mnist-100.py'
model = dict(classifier=dict(head=dict(type='SARLinearClsHead')))
