# The recipe of Cao et al. (2019): ResNet-32, 200 epochs, rate 0.1 after 5 epochs, a hundredth of it at 160 and at 180.
_base_ = [
    '../../_base_/datasets/cifar10-lt.py',
    '../../_base_/models/resnet32_cifar10.py',
    '../../_base_/schedules/cifar_200e.py',
]
custom_imports = dict(imports=['sar_mm'])
model = dict(head=dict(num_classes=100))
custom_hooks = [dict(type='ClassCountsHook')]

# 500 images of the first class down to 5 of the last; the test set is balanced.
data_root = 'data/cifar100'
data_preprocessor = dict(num_classes=100, mean=[129.304, 124.07, 112.434], std=[68.17, 65.392, 70.418])
train_dataloader = dict(dataset=dict(dataset=dict(type='CIFAR100', data_root=data_root)))
val_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root))
test_dataloader = val_dataloader
