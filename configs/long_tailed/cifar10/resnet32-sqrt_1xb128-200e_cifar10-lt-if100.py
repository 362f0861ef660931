# Square-root sampling; power=0 would be class-balanced.
_base_ = './resnet32-ce_1xb128-200e_cifar10-lt-if100.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassPowerSampler', power=0.5))
