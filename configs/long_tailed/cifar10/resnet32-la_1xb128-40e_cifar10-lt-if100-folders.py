_base_ = './resnet32-ce_1xb128-40e_cifar10-lt-if100-folders.py'
model = dict(head=dict(loss=dict(type='LogitAdjustedLoss')))
