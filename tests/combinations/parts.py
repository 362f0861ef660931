"""What the product offers, factor by factor, and which parts do not go together.

A new part joins with one line in its table below; where it does not go with another part, with one rule in ``RULES``.
"""

from pairs import Rule, pairwise

SEGMENTATION = ('fcn', 'cascade', 'auxiliary', 'binary', 'knet')
CLASSIFICATION = ('linear', 'normed', 'deit', 'multi-label', 'mixup')
SEMI = ('semi', 'semi-adaptive', 'semi-teacher')
COUNTED = ('logit-adjusted', 'ldam', 'class-balanced')
EPOCHS = ('epochs',)

SAR_LOSSES = {
    'default': dict(),
    'pull-balanced': dict(class_balanced=True, pull_weight=1.0),
    'separation': dict(separation_weight=1.0, separation_margin=-0.2),
    'sync-valid': dict(sync_valid=True),
    'off': dict(anchor_weight=0.0, pull_weight=0.0),
    'cosine': dict(distance='cosine', pull_weight=1.0, confidence_threshold=None),
    'adjusted': dict(type='LogitAdjustedSARLoss'),
}
ANCHORS = {
    'gaussian': dict(type='GaussianAnchors'),
    'orthogonal': dict(type='OrthogonalAnchors'),
    'simplex': dict(type='SimplexETFAnchors'),
    'equiangular': dict(type='EquiangularAnchors', cosine=0.2),
    'separated': dict(type='SeparatedAnchors'),
    'file': dict(type='EmbeddingAnchors'),
}
BASELINES = {  # in place of the anchors
    'none': '',
    'prototypes': 'PrototypeHead',
    'center-loss': 'CenterLossHead',
    'contrast': 'SupervisedContrastiveHead',
    'balanced-features': 'BalancedFeaturesHead',
}
SEMI_OPTIONS = {
    'semi': dict(threshold=0.3),
    'semi-adaptive': dict(
        threshold=dict(type='SelfAdaptiveThreshold', momentum=0.5),
        distribution_alignment=dict(momentum=0.5, target='labeled'),
        joint_forward=False,
        sup_weight=0.5,
        warmup_iters=2,
    ),
    'semi-teacher': dict(threshold=0.3, teacher=dict(momentum=0.2)),
}
LOSSES = {  # by toolbox, where they differ
    'stock': dict(type='CrossEntropyLoss'),
    'weighted': dict(type='CrossEntropyLoss', class_weight=True),  # one number per class
    'logit-adjusted': dict(type='LogitAdjustedLoss'),
    'ldam': dict(type='LDAMLoss', scale=1.0),
    'class-balanced': dict(type='ClassBalancedLoss', beta=0.9),
    'focal': dict(type='FocalLoss'),
    'ohem': dict(type='CrossEntropyLoss'),  # with a sampler of hard pixels
}
HOOKS = {
    'none': [],
    'drw': [dict(type='DeferredReweightingHook', begin=1, beta=0.9)],
    'drs': [dict(type='DeferredResamplingHook', begin=1)],
    'ema': [dict(type='EMAHook', momentum=0.1)],
    'ema-buffers': [dict(type='EMAHook', momentum=0.1, update_buffers=True)],
    'monitor': [dict(type='AnchorMonitorHook')],
}
SAMPLERS = {
    'default': dict(type='DefaultSampler', shuffle=True),
    'infinite': dict(type='InfiniteSampler', shuffle=True),
    'power': dict(type='ClassPowerSampler', power=1),
    'mixed': dict(type='LabeledUnlabeledSampler', labeled=2, unlabeled=2),
}
FACTORS = dict(
    head=SEGMENTATION + CLASSIFICATION,
    loss=tuple(LOSSES),
    sar=tuple(SAR_LOSSES),
    anchors=tuple(ANCHORS),
    baseline=tuple(BASELINES),
    gate=('all', 'per-class'),
    wrapper=('supervised', *SEMI),
    hook=tuple(HOOKS),
    metric=('stock', 'classes', 'groups', 'geometry'),
    validation=('one', 'both'),  # both: student and teacher
    loop=('epochs', 'iterations'),
    data=('plain', 'repeated', 'joined', 'class-balanced', 'long-tailed', 'noisy', 'subset'),
    sampler=tuple(SAMPLERS),
    weights=('same', 'classes', 'channels', 'anchors', 'gate', 'stock'),  # in what those of load_from are other ones
    processes=('1', '2'),
)

RULES = [
    # Heads and losses.
    Rule(dict(head=('binary',), loss=('weighted', *COUNTED)), 'one output for two classes: no softmax over classes'),
    Rule(dict(head=('binary',), hook=('drw',)), 'one class weight for two classes', 'has out_channels=1'),
    Rule(dict(head=('multi-label',), loss=COUNTED), 'a softmax has one label per image'),
    Rule(dict(head=CLASSIFICATION, loss=('ohem',)), 'a sampler of hard pixels'),
    Rule(dict(head=('knet',), loss=('ohem',)), 'the stages of K-Net have no sampler'),
    Rule(dict(head=('binary',), loss=('ohem',)), "mmseg's sampler of hard pixels takes a softmax over classes"),
    Rule(dict(head=SEGMENTATION, loss=('focal',)), "mmseg's FocalLoss fails on CPUs where torch has no kernel of mmcv"),
    Rule(dict(hook=('drw',), loss=('focal',)), 'no class weights', 'no module of the model has a class_weight'),
    # Baselines.
    Rule(
        dict(head=(*SEGMENTATION, 'multi-label', 'mixup'), baseline=('contrast', 'balanced-features')),
        'one class per image',
        'features \\(N, C\\) and class indices',
    ),
    # Semi-supervised models.
    Rule(dict(wrapper=SEMI, head=('multi-label',)), 'pseudo-labels are one per image', 'gives one label to an image'),
    Rule(dict(wrapper=SEMI, head=('mixup',)), 'pseudo-labels belong to unmixed images', 'None in semi-supervised'),
    Rule(dict(wrapper=SEMI, head=('binary',)), 'its loss is not of K outputs', 'SemiSegmentor cannot train a'),
    Rule(dict(wrapper=SEMI, loop=EPOCHS), 'LabeledUnlabeledSampler has no end'),
    Rule(dict(wrapper=SEMI, sampler=('default', 'infinite', 'power')), 'each batch has both kinds of images'),
    Rule(dict(wrapper=('supervised',), sampler=('mixed',)), 'two kinds', 'a SemiSupervisedDataset, with num_labeled'),
    Rule(dict(wrapper=('supervised',), validation=('both',)), 'one model', 'is for SemiSegmentor and SemiClassifier'),
    # Loops and samplers.
    Rule(dict(loop=EPOCHS, sampler=('infinite', 'mixed')), 'an epoch would have no end'),
    Rule(dict(hook=('drs',), sampler=('default', 'infinite', 'mixed')), 'another power', 'to be a ClassPowerSampler'),
    Rule(dict(hook=('drs',), loop=('iterations',)), 'begins at an epoch', 'begins at an epoch, but an IterBasedTrain'),
    # What needs one label per image.
    Rule(dict(head=SEGMENTATION, sampler=('power',)), 'labels of pixels', 'has no labels of images'),
    Rule(dict(head=('multi-label',), sampler=('power',)), 'several labels', 'of one label per image'),
    Rule(dict(head=SEGMENTATION, data=('long-tailed',)), 'labels of pixels', 'has no labels of images'),
    Rule(dict(head=SEGMENTATION, data=('class-balanced',)), 'labels of pixels'),
    Rule(dict(head=('multi-label',), data=('long-tailed',)), 'several labels', 'of one label per image'),
    Rule(dict(head=SEGMENTATION, data=('noisy',)), 'labels of pixels', 'has no labels of images'),
    Rule(dict(head=('multi-label',), data=('noisy',)), 'several labels', 'of one label per image'),
    Rule(dict(head=('multi-label',), metric=('groups', 'geometry')), 'several labels', 'takes one label per sample'),
    # Weights of another run.
    Rule(dict(head=('binary',), weights=('classes',)), 'two classes, always'),
    Rule(
        dict(head=CLASSIFICATION, hook=('ema', 'ema-buffers'), weights=('classes', 'channels')),
        "mmpretrain's EMAHook takes averaged weights with load_from, too, and fails where shapes differ",
    ),
    Rule(
        dict(head=CLASSIFICATION, hook=('ema', 'ema-buffers'), weights=('anchors',), anchors=('file',)),
        'the same, for anchors of another dimension',
    ),
]
ROWS = pairwise(FACTORS, RULES)


def name_of(row: dict) -> str:
    """Return a row as the name of a test: its values, those that are the usual ones left out."""
    usual = dict(FACTORS, **{factor: values[0] for factor, values in FACTORS.items()})
    return '-'.join(value for factor, value in row.items() if factor in ('head', 'loss') or value != usual[factor])
