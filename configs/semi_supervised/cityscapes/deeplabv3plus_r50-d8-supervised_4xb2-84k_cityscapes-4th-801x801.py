_base_ = './deeplabv3plus_r50-d8-supervised_4xb2-84k_cityscapes-16th-801x801.py'
train_dataloader = dict(dataset=dict(ann_file='splits/4th/labeled.txt'))
