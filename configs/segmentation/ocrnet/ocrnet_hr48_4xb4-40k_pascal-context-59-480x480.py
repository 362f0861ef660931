# mmseg has no such config: its model, with the schedule of its FCN-HRNet on this data set.
_base_ = [
    'mmseg::_base_/models/ocrnet_hr18.py',
    'mmseg::_base_/datasets/pascal_context_59.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_40k.py',
]
model = dict(
    pretrained='open-mmlab://msra/hrnetv2_w48',
    data_preprocessor=dict(size=(480, 480)),
    backbone=dict(
        extra=dict(
            stage2=dict(num_channels=(48, 96)),
            stage3=dict(num_channels=(48, 96, 192)),
            stage4=dict(num_channels=(48, 96, 192, 384)),
        )
    ),
    decode_head=[
        dict(_base_.model.decode_head[0], in_channels=[48, 96, 192, 384], channels=720, num_classes=59),
        dict(_base_.model.decode_head[1], in_channels=[48, 96, 192, 384], num_classes=59),
    ],
    test_cfg=dict(mode='slide', crop_size=(480, 480), stride=(320, 320)),
)
optim_wrapper = dict(optimizer=dict(lr=0.004, weight_decay=0.0001))
