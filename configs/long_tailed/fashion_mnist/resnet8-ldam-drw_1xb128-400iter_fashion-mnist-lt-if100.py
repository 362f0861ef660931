_base_ = './resnet8-ce_1xb128-400iter_fashion-mnist-lt-if100.py'
model = dict(head=dict(type='NormedLinearClsHead', loss=dict(type='LDAMLoss')))
custom_hooks = [dict(type='ClassCountsHook'), dict(type='DeferredReweightingHook', begin=320, by_epoch=False)]
