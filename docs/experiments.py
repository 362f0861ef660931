"""The trainings of the results page, by the name of their table; docs/results.py trains and shows them."""

from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from train_configs import Run

ROOT = Path(__file__).resolve().parents[1]
FASHION = 'long_tailed/fashion_mnist/{}_1xb128-4k_fashion-mnist-lt-if100'
CIFAR = 'long_tailed/cifar10/{}_1xb128-40e_cifar10-lt-if100-folders'
CAMVID = 'long_tailed/camvid/{}_1xb8-3k_camvid-180x240'
NOISE = 'noisy_labels/fashion_mnist/{}_1xb128-4k_fashion-mnist-sym{}'
FEW = 'semi_supervised/fashion_mnist/{}_1xb16-1k_fashion-mnist-{}'
TEXT = 'configs/long_tailed/fashion_mnist/text_anchors.npy'
GROUPS = ('accuracy', 'many', 'medium', 'few')
DISTANCE = 'geometry/anchor_distance_relative'  # of the class means from their anchors, in lengths of an anchor
GATE = 'gate opens'  # the first logged step with an open gate
ANCHORS, LOSS = 'model.head.anchor_head.', 'model.head.anchor_head.loss.'
SCHEDULE = 'default_hooks.anchor_weights.'


class Experiment(NamedTuple):
    """Trainings of one table: every config with every variant and seed.

    Attributes:
        configs: Names of configs below configs/, without .py.
        seeds: Seeds.
        variants: Settings by the name of what they change; None: the config as it is.
        columns: Scores in the table.
        scores: Of which data: ``'scores'``, the test set, or ``'validation'`` where settings are chosen.
        beside: Names of configs that the table shows as they are.
    """

    configs: Sequence[str]
    seeds: Sequence[int]
    columns: Sequence[str]
    variants: Dict[Optional[str], Sequence[str]] = {None: ()}
    scores: str = 'scores'
    beside: Sequence[str] = ()

    def runs(self) -> List[Run]:
        settings = [(config, *variant) for variant in self.variants.items() for config in self.configs]
        settings += [(config, None, ()) for config in self.beside]
        return [
            Run(ROOT / 'configs' / f'{config}.py', seed, variant, tuple(options))
            for seed in self.seeds
            for config, variant, options in settings
        ]


def both(pattern: str, *names: str) -> List[str]:
    return [pattern.format(prefix + name) for name in names for prefix in ('', 'sar_')]


# What is tried beyond the paper's settings, on validation images; the rivals take the place of the anchors.
SEARCH = {
    'anchor-loss-only': [f'{LOSS}pull_weight=0'],
    'pull-1': [f'{LOSS}pull_weight=1'],
    'pull-10': [f'{LOSS}pull_weight=10'],
    'balanced-pull-1': [f'{LOSS}class_balanced=True', f'{LOSS}pull_weight=1'],
    'balanced-pull-10': [f'{LOSS}class_balanced=True', f'{LOSS}pull_weight=10'],
    'cosine': [f'{LOSS}distance=cosine'],
    'cosine-1': [f'{LOSS}distance=cosine', f'{LOSS}pull_weight=1'],
    'confidence-0.99': [f'{LOSS}confidence_threshold=0.99'],
    'confidence-none': [f'{LOSS}confidence_threshold=None'],
    'momentum-0.99': [f'{ANCHORS}momentum=0.99'],
    'momentum-0.9': [f'{ANCHORS}momentum=0.9'],
    'pull-rising-to-1': [f'{SCHEDULE}type=AnchorWeightHook', f'{SCHEDULE}end=4000', f'{SCHEDULE}pull_weight=1'],
    'anchor-loss-falling-to-0': [
        f'{SCHEDULE}type=AnchorWeightHook',
        f'{SCHEDULE}end=4000',
        f'{SCHEDULE}anchor_weight=0',
    ],
    'gate-per-class': [f'{ANCHORS}gate_per_class=True'],
    'adjusted': [f'{LOSS}type=LogitAdjustedSARLoss'],
    'adjusted-none': [f'{LOSS}type=LogitAdjustedSARLoss', f'{LOSS}confidence_threshold=None'],
    'adjusted-none-cosine-1': [
        f'{LOSS}type=LogitAdjustedSARLoss',
        f'{LOSS}confidence_threshold=None',
        f'{LOSS}distance=cosine',
        f'{LOSS}pull_weight=1',
    ],
    'narrow-projector': [f'{ANCHORS}projector.channels=16'],
    'balanced-features': [f'{ANCHORS}type=BalancedFeaturesHead'],
}
# Of these, and beyond, what may help where the task loss itself does nothing about the imbalance.
SEARCH_CE = {
    **{
        name: SEARCH[name]
        for name in ('anchor-loss-only', 'pull-1', 'pull-10', 'balanced-pull-1', 'balanced-pull-10', 'confidence-none')
    },
    **{name: SEARCH[name] for name in ('cosine-1', 'adjusted', 'adjusted-none')},
    'adjusted-none-balanced-pull-10': SEARCH['adjusted-none'] + SEARCH['balanced-pull-10'],
    'anchor-10-none': [f'{LOSS}anchor_weight=10', f'{LOSS}confidence_threshold=None'],
}
RIVALS = {
    f'{name}-{weight}': [f'{ANCHORS}type={kind}', f'{ANCHORS}weight={weight}']
    for name, kind in (
        ('prototypes', 'PrototypeHead'),
        ('center-loss', 'CenterLossHead'),
        ('contrast', 'SupervisedContrastiveHead'),
    )
    for weight in (0.01, 0.1, 1)
}

BFLOAT16: dict = {name: [f'{ANCHORS}matmul_dtype={name}'] for name in ('float32', 'bfloat16')}

LA = both(FASHION, 'resnet8-la')
EXPERIMENTS = {
    'full-length': Experiment(both(FASHION, 'resnet8-ce', 'resnet8-la', 'resnet8-ldam-drw'), (0, 1, 2), GROUPS),
    'search': Experiment(
        [FASHION.format('sar_resnet8-la')], (0,), (*GROUPS, DISTANCE), SEARCH, 'validation', both(FASHION, 'resnet8-la')
    ),
    'search-ce': Experiment(
        [FASHION.format('sar_resnet8-ce')],
        (0,),
        (*GROUPS, DISTANCE),
        SEARCH_CE,
        'validation',
        both(FASHION, 'resnet8-ce'),
    ),
    'rivals-search': Experiment(
        [FASHION.format('sar_resnet8-la')], (0,), GROUPS, RIVALS, 'validation', both(FASHION, 'resnet8-la')
    ),
    'imbalance': Experiment(
        LA,
        (0, 1, 2),
        GROUPS,
        {
            'step': ['train_dataloader.dataset.profile=step'],
            'reversed': ['train_dataloader.dataset.class_order=[9,8,7,6,5,4,3,2,1,0]'],
        },
    ),
    'language': Experiment(
        LA[1:],
        (0, 1, 2),
        GROUPS,
        {'text': [f'{ANCHORS}anchors.type=EmbeddingAnchors', f'{ANCHORS}anchors.path={TEXT}']},
    ),
    'fixed-classifier': Experiment(
        [FASHION.format('resnet8-ce')],
        (0, 1, 2),
        GROUPS,
        {'etf': ['model.head.type=ETFClsHead', 'model.head.loss.type=DotRegressionLoss']},
    ),
    'few-labels': Experiment(
        [
            FEW.format(head, number)
            for number in ('40labels', '100labels', '400labels', 'lt-if100-10pct')
            for head in ('resnet8-supervised', 'resnet8-fixmatch', 'sar_resnet8-fixmatch')
        ],
        (0, 1, 2),
        ('accuracy/top1', 'accuracy'),
    ),
    'noise': Experiment(
        [NOISE.format(head, rate) for rate in (20, 40) for head in ('resnet8', 'sar_resnet8')],
        (0, 1, 2),
        ('accuracy/top1',),
    ),
    'camvid': Experiment(
        both(CAMVID, 'fcn_unet-ce', 'fcn_unet-la'),
        (0, 1),
        ('mIoU', 'mIoU/common', 'mIoU/medium', 'mIoU/rare'),
    ),
    # The rounding of bfloat16, on a CPU: what the default does on GPUs where K C^2 is large.
    'bfloat16': Experiment(
        LA[1:], (0, 1, 2), (*GROUPS, DISTANCE, GATE), {'bfloat16': BFLOAT16['bfloat16']}, 'validation', LA[1:]
    ),
    'bfloat16-digits': Experiment(
        ['quickstart/sar_resnet18_1xb64-300iter_digits-lt'],
        (0, 1, 2),
        ('accuracy/top1', GATE),
        {name: [*options, 'default_hooks.logger.interval=5'] for name, options in BFLOAT16.items()},
    ),
    'bfloat16-scenes': Experiment(
        ['quickstart/sar_fcn_unet_1xb16-400iter_digit-scenes-64x64'],
        (0, 1, 2),
        ('mIoU', GATE),
        {
            name: [
                option.replace('.head.', '.decode_head.') for option in (*options, 'default_hooks.logger.interval=5')
            ]
            for name, options in BFLOAT16.items()
        },
    ),
    'cifar10': Experiment(
        both(CIFAR, 'resnet32-la', 'resnet32-ce', 'resnet32-ldam-drw'), (0,), ('accuracy', 'many', 'medium')
    ),
    'cifar10-seed1': Experiment(both(CIFAR, 'resnet32-la'), (1,), ('accuracy', 'many', 'medium')),
}
