# Classifier re-training (Kang et al., 2020): the features of a trained model stay, its classifier is learnt anew from
# class-balanced batches. Say which features: --cfg-options model.backbone.init_cfg.checkpoint=PATH
_base_ = './resnet32-ce_1xb128-200e_cifar10-lt-if100.py'
model = dict(
    backbone=dict(frozen_stages=3, norm_eval=True, init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'))
)
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassPowerSampler', power=0))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', T_max=10)
train_cfg = dict(max_epochs=10)
