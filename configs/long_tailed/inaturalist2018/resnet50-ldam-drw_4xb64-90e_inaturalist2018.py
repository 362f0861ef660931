_base_ = './resnet50-ce_4xb64-90e_inaturalist2018.py'
model = dict(head=dict(type='NormedLinearClsHead', loss=dict(type='LDAMLoss')))
custom_hooks = [dict(type='ClassCountsHook'), dict(type='DeferredReweightingHook', begin=70)]
