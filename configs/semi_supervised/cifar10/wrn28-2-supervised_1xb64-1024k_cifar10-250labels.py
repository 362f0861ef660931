_base_ = './wrn28-2-supervised_1xb64-1024k_cifar10-40labels.py'
train_dataloader = dict(dataset=dict(per_class=25))
