_base_ = './resnet32-ce_1xb128-200e_cifar10-lt-if100.py'
# Its class weights start as random unit vectors.
model = dict(head=dict(type='NormedLinearClsHead', loss=dict(type='LDAMLoss'), init_cfg=None))
custom_hooks = [dict(type='ClassCountsHook'), dict(type='DeferredReweightingHook', begin=160)]
