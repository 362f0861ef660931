# The thresholds of FreeMatch (Wang et al., ICLR 2023), which follow the model; not its loss for fairness of classes.
_base_ = './wrn28-2-fixmatch_1xb64-1024k_cifar10-40labels.py'
model = dict(semi=dict(threshold=dict(_delete_=True, type='SelfAdaptiveThreshold', momentum=0.001)))
