# DeepLabV3+ with ResNet-18 on an eighth of the images, 46 of 367, and on no others.
_base_ = '../../long_tailed/camvid/deeplabv3plus_r18-d8-ce_1xb8-20k_camvid-360x480.py'
train_dataloader = dict(batch_size=4, dataset=dict(ann_file='splits/8th/labeled.txt'))
