_base_ = [
    'mmseg::_base_/models/deeplabv3plus_r50-d8.py',
    '../../_base_/datasets/camvid.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_20k.py',
]
custom_imports = dict(imports=['sar_mm'])
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    pretrained='open-mmlab://resnet18_v1c',
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(depth=18, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=512, c1_in_channels=64, c1_channels=12, channels=128, num_classes=11, norm_cfg=norm_cfg
    ),
    auxiliary_head=dict(in_channels=256, channels=64, num_classes=11, norm_cfg=norm_cfg),
)
custom_hooks = [dict(type='ClassCountsHook', file=f'{_base_.data_root}/class_counts.json')]
train_cfg = dict(val_interval=5000)
