_base_ = './resnet8-fixmatch_1xb16-1k_fashion-mnist-100labels.py'
max_iters = 2000
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
