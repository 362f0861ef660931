_base_ = './resnet8-fixmatch_1xb16-1k_fashion-mnist-100.py'
model = dict(classifier=dict(head=dict(type='SARLinearClsHead')))
train_dataloader = dict(dataset=dict(labelled=dict(per_class=4), unlabelled=dict(per_class=4)))
