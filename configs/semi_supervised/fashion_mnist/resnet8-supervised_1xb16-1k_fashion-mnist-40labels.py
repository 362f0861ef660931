_base_ = './resnet8-supervised_1xb16-1k_fashion-mnist-100labels.py'
train_dataloader = dict(dataset=dict(per_class=4))
