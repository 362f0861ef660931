_base_ = './resnet8-fixmatch_1xb16-1k_fashion-mnist-lt-if100-10pct.py'
model = dict(classifier=dict(head=dict(type='SARLinearClsHead')))
