_base_ = './wrn28-2-fixmatch_1xb64-1024k_cifar10-40labels.py'
model = dict(
    classifier=dict(head=dict(type='SARLinearClsHead')),
    semi=dict(threshold=dict(_delete_=True, type='SelfAdaptiveThreshold', momentum=0.001)),
)
