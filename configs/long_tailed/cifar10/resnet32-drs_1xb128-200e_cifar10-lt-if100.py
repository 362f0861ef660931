# Deferred re-sampling: class-balanced batches in the last 40 epochs.
_base_ = './resnet32-ce_1xb128-200e_cifar10-lt-if100.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassPowerSampler', power=1))
custom_hooks = [dict(type='ClassCountsHook'), dict(type='DeferredResamplingHook', begin=160)]
