# CIFAR-100, long-tailed: 500 images of the first class down to 5 of the last; the test set is balanced.
_base_ = './cifar10-lt100.py'
data_root = 'data/cifar100'
data_preprocessor = dict(num_classes=100, mean=[129.304, 124.07, 112.434], std=[68.17, 65.392, 70.418])
train_dataloader = dict(dataset=dict(dataset=dict(type='CIFAR100', data_root=data_root)))
val_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root))
test_dataloader = val_dataloader
