# mmseg has no such config: the model of its config for ADE20K.
_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    'mmseg::_base_/datasets/cityscapes.py',
    'mmseg::_base_/default_runtime.py',
    '../../_base_/schedules/adamw_80k.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220317-1cdeb081.pth',  # noqa: E501
        ),
        drop_path_rate=0.3,
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768], num_classes=19),
    auxiliary_head=dict(in_channels=384, num_classes=19),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(absolute_pos_embed=dict(decay_mult=0.0), relative_position_bias_table=dict(decay_mult=0.0))
    )
)
