_base_ = './fcn_unet-unimatch_1xb4-600iter_camvid-8th-180x240.py'
model = dict(
    segmentor=dict(decode_head=dict(type='SARFCNHead')),
    semi=dict(teacher=dict(momentum=0.01)),
)
train_cfg = dict(val_interval=200)
val_cfg = dict(type='TeacherStudentValLoop')
default_hooks = dict(checkpoint=dict(save_best='teacher/mIoU', rule='greater'))
