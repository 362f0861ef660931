# Trained to the end: five times as long as the 600iter configs, and validated on the images for validation.
_base_ = './fcn_unet-ce_1xb8-600iter_camvid-180x240.py'
val_dataloader = dict(dataset=dict(data_prefix=dict(img_path='img/val', seg_map_path='ann/val')))

max_iters = 3000
param_scheduler = dict(end=max_iters)
train_cfg = dict(max_iters=max_iters, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=500))
