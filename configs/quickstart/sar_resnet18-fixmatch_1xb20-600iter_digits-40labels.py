_base_ = './resnet18-fixmatch_1xb20-600iter_digits-40labels.py'
model = dict(classifier=dict(head=dict(type='SARLinearClsHead')))
