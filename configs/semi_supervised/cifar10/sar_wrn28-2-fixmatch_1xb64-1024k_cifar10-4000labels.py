_base_ = './wrn28-2-fixmatch_1xb64-1024k_cifar10-40labels.py'
model = dict(classifier=dict(head=dict(type='SARLinearClsHead')))
train_dataloader = dict(dataset=dict(labeled=dict(per_class=400)))
