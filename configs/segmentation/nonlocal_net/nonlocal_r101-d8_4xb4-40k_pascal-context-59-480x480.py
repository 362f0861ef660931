# mmseg has no such config: its model, with the schedule of its DeepLabV3 on this data set.
_base_ = [
    'mmseg::_base_/models/nonlocal_r50-d8.py',
    'mmseg::_base_/datasets/pascal_context_59.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_40k.py',
]
model = dict(
    pretrained='open-mmlab://resnet101_v1c',
    data_preprocessor=dict(size=(480, 480)),
    backbone=dict(depth=101),
    decode_head=dict(num_classes=59),
    auxiliary_head=dict(num_classes=59),
    test_cfg=dict(mode='slide', crop_size=(480, 480), stride=(320, 320)),
)
optim_wrapper = dict(optimizer=dict(lr=0.004, weight_decay=0.0001))
