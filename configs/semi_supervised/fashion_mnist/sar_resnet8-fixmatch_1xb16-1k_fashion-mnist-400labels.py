_base_ = './resnet8-fixmatch_1xb16-1k_fashion-mnist-100labels.py'
model = dict(classifier=dict(head=dict(type='SARLinearClsHead')))
train_dataloader = dict(dataset=dict(labeled=dict(per_class=40)))
