# 4 labeled images of each digit, the others of the 1,200 without labels: here without these, for comparison.
_base_ = './resnet18_1xb64-300iter_digits-lt.py'
custom_imports = dict(imports=['sar_mm'])
data_prefix = 'train_balanced'
train_dataloader = dict(
    batch_size=20,
    dataset=dict(
        _delete_=True,
        type='LabeledSubset',
        part='labeled',
        per_class=4,
        dataset=dict(
            type='CustomDataset',
            data_root=_base_.data_root,
            data_prefix=data_prefix,
            pipeline=_base_.train_pipeline,
        ),
    ),
)

max_iters = 600
param_scheduler = dict(T_max=max_iters)
train_cfg = dict(max_iters=max_iters, val_interval=200)
auto_scale_lr = dict(base_batch_size=20)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=200))
