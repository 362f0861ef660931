# Fashion-MNIST, of which a few images of each class are labeled and the other 60,000 are not; the whole test set.
weak = [
    dict(type='RandomCrop', crop_size=28, padding=3),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
train_pipeline = [*weak, dict(type='PackInputs')]
# RandAugment's operations that grey images can take; a square is cut out of each, as in FixMatch.
strong = [
    *weak,
    dict(
        type='RandAugment',
        num_policies=2,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=0),
        policies=[
            dict(type='Rotate', magnitude_range=(0, 30)),
            dict(type='Posterize', magnitude_range=(4, 0)),
            dict(type='Solarize', magnitude_range=(256, 0)),
            dict(type='Brightness', magnitude_range=(0, 0.9)),
            dict(type='Sharpness', magnitude_range=(0, 0.9)),
            dict(type='Shear', magnitude_range=(0, 0.3), direction='horizontal'),
            dict(type='Shear', magnitude_range=(0, 0.3), direction='vertical'),
            dict(type='Translate', magnitude_range=(0, 0.3), direction='horizontal'),
            dict(type='Translate', magnitude_range=(0, 0.3), direction='vertical'),
        ],
    ),
    dict(type='Cutout', shape=12, pad_val=73, prob=1.0),
]
unlabeled_pipeline = [
    dict(type='MultiBranch', weak=train_pipeline, strong=[*strong, dict(type='PackInputs')]),
]
test_pipeline = [dict(type='PackInputs')]
data_root = 'data/fashion_mnist'
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='LabeledSubset',
        part='labeled',
        per_class=10,
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
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
