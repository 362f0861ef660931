_base_ = './wrn28-2-fixmatch_1xb64-1024k_cifar10-4000.py'
model = dict(classifier=dict(head=dict(type='SARLinearClsHead')))
