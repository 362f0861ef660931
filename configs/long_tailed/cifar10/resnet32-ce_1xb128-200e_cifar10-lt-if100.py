# The recipe of Cao et al. (2019): ResNet-32, 200 epochs, rate 0.1 after 5 epochs, a hundredth of it at 160 and at 180.
_base_ = [
    '../../_base_/datasets/cifar10-lt.py',
    '../../_base_/models/resnet32_cifar10.py',
    '../../_base_/schedules/cifar_200e.py',
]
custom_imports = dict(imports=['sar_mm'])
custom_hooks = [dict(type='ClassCountsHook')]
