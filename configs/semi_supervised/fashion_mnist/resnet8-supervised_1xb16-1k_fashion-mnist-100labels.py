# 100 labeled images, ten of each class, and no others.
_base_ = [
    '../../_base_/datasets/fashion-mnist-semi.py',
    '../../_base_/models/resnet8_fashion-mnist.py',
    '../../_base_/schedules/fashion-mnist-semi_1k.py',
]
custom_imports = dict(imports=['sar_mm'])
