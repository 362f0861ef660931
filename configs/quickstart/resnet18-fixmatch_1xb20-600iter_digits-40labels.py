# FixMatch with a moving average as the teacher: 20 labeled and 60 unlabeled images per step.
_base_ = './resnet18-supervised_1xb20-600iter_digits-40labels.py'
model = dict(
    _delete_=True,
    type='SemiClassifier',
    classifier=_base_.model,
    # The digits are equally frequent, and are to be so among the pseudo-labels.
    semi=dict(threshold=0.8, teacher=dict(momentum=0.02), distribution_alignment=dict(momentum=0.01)),
)

load_and_shift = _base_.train_pipeline[:-1]
pack = _base_.train_pipeline[-1:]
strong = [
    dict(
        type='RandAugment',
        num_policies=2,
        magnitude_level=10,
        magnitude_std='inf',
        hparams=dict(pad_val=0),
        policies=[
            dict(type='Rotate', magnitude_range=(0, 25)),
            dict(type='Shear', magnitude_range=(0, 0.3), direction='horizontal'),
            dict(type='Shear', magnitude_range=(0, 0.3), direction='vertical'),
            dict(type='Translate', magnitude_range=(0, 0.15), direction='horizontal'),
            dict(type='Translate', magnitude_range=(0, 0.15), direction='vertical'),
            dict(type='Contrast', magnitude_range=(0, 0.8)),
            dict(type='Brightness', magnitude_range=(0, 0.8)),
            dict(type='Sharpness', magnitude_range=(0, 0.9)),
            dict(type='Posterize', magnitude_range=(8, 2)),
        ],
    ),
    dict(type='Cutout', shape=5, pad_val=0, prob=1.0),
]
train_dataloader = dict(
    batch_size=80,
    sampler=dict(_delete_=True, type='LabeledUnlabeledSampler', labeled=20, unlabeled=60),
    dataset=dict(
        _delete_=True,
        type='SemiSupervisedDataset',
        labeled=_base_.train_dataloader.dataset,
        unlabeled=dict(
            part='unlabeled',
            dataset=dict(pipeline=[*load_and_shift, dict(type='MultiBranch', weak=pack, strong=[*strong, *pack])]),
        ),
    ),
)
auto_scale_lr = dict(base_batch_size=80)
