import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

pytest.importorskip('mmpretrain.models')


def build(head, semi=None, neck=True, beside=False):
    preprocessor = dict(num_classes=3, mean=[127.5] * 3, std=[127.5] * 3)
    classifier = dict(
        type='ImageClassifier',
        backbone=dict(type='CIFARResNet', depth=8, base_channels=4),
        neck=dict(type='GlobalAveragePooling') if neck else None,
        head=head,
    )
    config = dict(type='SemiClassifier', classifier=classifier, semi=semi)
    (config if beside else classifier).update(data_preprocessor=preprocessor)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(config).train()


def linear(kind='LinearClsHead', **options):
    return dict(type=kind, num_classes=3, in_channels=16, **options)


@pytest.mark.parametrize(
    'head',
    [
        linear(),
        linear(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)),
        linear('SARLinearClsHead'),
        linear('SARLinearClsHead', loss=dict(type='LogitAdjustedLoss', class_counts=[5, 3, 1])),
        linear('SARNormedLinearClsHead', loss=dict(type='LDAMLoss', class_counts=[5, 3, 1])),
        linear('SARStackedLinearClsHead', mid_channels=[8]),
        linear('SARArcFaceClsHead'),
    ],
    ids=lambda head: head['type'] + '-' + head.get('loss', {}).get('type', ''),
)
@pytest.mark.parametrize('joint_forward', [True, False])
def test_loss__of_many_kinds_of_heads(head, joint_forward, make_items):
    model = build(head, semi=dict(threshold=0.0, joint_forward=joint_forward, teacher={}))
    losses = model(**model.data_preprocessor(make_items('cls'), training=True), mode='loss')
    assert losses['loss_unsup'] > 0 and losses['loss_unsup'].isfinite()
    assert ('loss_anchor' in losses) == head['type'].startswith('SAR')
    sum(value for name, value in losses.items() if 'loss' in name).backward()


def test_data_preprocessor__beside_the_model(make_items):
    model = build(linear(), beside=True)
    data = model.data_preprocessor(make_items('cls'), training=True)
    assert data['inputs'].abs().max() <= 1


def test_loss__without_known_labels_there_is_no_accuracy(make_semi, make_items):
    model = make_semi('cls', semi={})
    losses = model(**model.data_preprocessor(make_items('cls', known=False), training=True), mode='loss')
    assert 'pseudo_acc' not in losses and 'pseudo_ratio' in losses


@pytest.mark.parametrize(
    'head',
    [
        dict(type='MultiLabelLinearClsHead', num_classes=3, in_channels=16),
        dict(type='ClsHead'),
        None,
    ],
    ids=['multi-label', 'no classifier', 'no head'],
)
def test_init__heads_without_one_label_per_image(head):
    with pytest.raises(TypeError, match='needs a classifier with a head that gives one label to an image'):
        build(head)


def test_predict_probability__is_a_distribution(make_semi):
    model = make_semi('cls', semi={}).eval()
    probability = model.predict_probability(model.student, torch.randn(5, 3, 16, 16))
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(5))
