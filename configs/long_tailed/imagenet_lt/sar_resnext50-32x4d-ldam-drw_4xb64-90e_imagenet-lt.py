_base_ = './resnext50-32x4d-ce_4xb64-90e_imagenet-lt.py'
model = dict(head=dict(type='SARNormedLinearClsHead', loss=dict(type='LDAMLoss')))
custom_hooks = [dict(type='ClassCountsHook'), dict(type='DeferredReweightingHook', begin=70)]
