_base_ = './deeplabv3plus_r101-d8-supervised_4xb2-84k_cityscapes-16th-801x801.py'
train_dataloader = dict(dataset=dict(ann_file='splits/8th/labeled.txt'))
