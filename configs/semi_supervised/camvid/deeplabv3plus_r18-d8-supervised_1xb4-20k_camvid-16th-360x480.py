_base_ = './deeplabv3plus_r18-d8-supervised_1xb4-20k_camvid-8th-360x480.py'
train_dataloader = dict(dataset=dict(ann_file='splits/16th/labeled.txt'))
