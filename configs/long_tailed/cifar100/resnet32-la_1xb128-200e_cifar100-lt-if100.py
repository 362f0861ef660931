_base_ = './resnet32-ce_1xb128-200e_cifar100-lt-if100.py'
model = dict(head=dict(loss=dict(type='LogitAdjustedLoss')))
