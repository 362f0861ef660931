_base_ = './deeplabv3plus_r101-d8-supervised_4xb2-105k_voc12-92labels-321x321.py'
train_dataloader = dict(dataset=dict(ann_file='splits/366/labeled.txt'))
