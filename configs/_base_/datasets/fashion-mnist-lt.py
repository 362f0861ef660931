# Fashion-MNIST, long-tailed: 2,000 images of the first class down to 20 of the last; the test set is balanced.
train_pipeline = [
    dict(type='RandomCrop', crop_size=28, padding=2),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]
data_root = 'data/fashion_mnist'
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='LongTailedDataset',
        imbalance_factor=100,
        max_per_class=2000,
        dataset=dict(type='FashionMNIST', data_root=data_root, split='train', pipeline=train_pipeline),
    ),
)
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    # Without test_mode, this data set would show the training images.
    dataset=dict(type='FashionMNIST', data_root=data_root, split='test', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
# 2000, 1199, 718 | 430, 258, 154 | 92, 55, 33, 20 training images
val_evaluator = dict(type='GroupAccuracy', many=500, few=100)
test_evaluator = val_evaluator
