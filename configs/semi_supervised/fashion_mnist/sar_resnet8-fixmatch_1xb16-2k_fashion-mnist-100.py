_base_ = './resnet8-fixmatch_1xb16-2k_fashion-mnist-100.py'
model = dict(classifier=dict(head=dict(type='SARLinearClsHead')))
