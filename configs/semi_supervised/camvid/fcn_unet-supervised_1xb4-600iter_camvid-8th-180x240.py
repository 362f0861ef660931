# The small model for a CPU on an eighth of the images, 46 of 367, and on no others.
_base_ = '../../long_tailed/camvid/fcn_unet-ce_1xb8-600iter_camvid-180x240.py'
train_dataloader = dict(batch_size=4, dataset=dict(ann_file='splits/8th/labeled.txt'))
