# WRN-28-2 on 4 labeled images of each class, and on no others.
_base_ = '../../_base_/datasets/cifar10-semi.py'
custom_imports = dict(imports=['sar_mm'])
