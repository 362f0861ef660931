_base_ = './deeplabv3plus_r50-d8-supervised_4xb2-105k_voc12-92labels-321x321.py'
model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
