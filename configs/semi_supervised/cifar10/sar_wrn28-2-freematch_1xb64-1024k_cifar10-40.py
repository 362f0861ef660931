_base_ = './wrn28-2-freematch_1xb64-1024k_cifar10-40.py'
model = dict(classifier=dict(head=dict(type='SARLinearClsHead')))
