_base_ = './resnet8-ce_1xb128-4k_fashion-mnist-lt-if100.py'
model = dict(head=dict(type='NormedLinearClsHead', loss=dict(type='LDAMLoss')))
custom_hooks = [*_base_.custom_hooks, dict(type='DeferredReweightingHook', begin=3200, by_epoch=False)]
