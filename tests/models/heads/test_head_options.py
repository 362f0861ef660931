"""Options of SAR heads: what an anchor head is given, and the losses of the stock head that go with it."""

import pytest
import torch

from sar_mm.models.heads import with_semantic_anchors

SHORT = ['seg', 'cls', 'vit_hidden']


@pytest.mark.parametrize('kind', SHORT)
def test_anchor_head__overrides(kind, make_model, sar_heads):
    channels = dict(seg=16, cls=16, vit_hidden=12)[kind]
    options = dict(anchors=dict(type='SimplexETFAnchors'), momentum=0.5, gate_threshold=0.6, ignore_index=None)
    options.update(num_classes=5, channels=channels)  # as in the head
    default, changed = (sar_heads(make_model(kind, sar=True, anchor_head=each))[0] for each in (None, options))
    assert (default.anchor_head.momentum, default.anchor_head.gate_threshold) == (0.999, 0.8)
    assert default.anchor_head.ignore_index == (255 if kind == 'seg' else None)
    assert (changed.anchor_head.momentum, changed.anchor_head.gate_threshold) == (0.5, 0.6)
    assert changed.anchor_head.ignore_index is None
    assert default.anchor_head.semantic_anchors.shape == (5, channels)
    anchors = torch.nn.functional.normalize(changed.anchor_head.anchors)
    cosines = anchors @ anchors.t()
    torch.testing.assert_close(cosines, 1.25 * torch.eye(5) - 0.25, atol=1e-5, rtol=0)


WRONG = [
    (dict(num_classes=7), r'anchor_head\.num_classes.* 5.*7'),
    (dict(channels=9), r'anchor_head\.channels.*9'),
    (dict(anchors=dict(type='NoAnchors')), r'anchors\.type.*GaussianAnchors.*NoAnchors'),
    (dict(loss=dict(type='SARLoss', pull_weight=-1)), r'pull_weight.*-1'),
    (dict(loss=dict(type='SARLoss', confidence_threshold=1.0)), r'confidence_threshold.*1\.0'),
    (dict(gate_threshold=0), r'gate_threshold.*0'),
]


@pytest.mark.parametrize(('kind', 'options', 'match'), [(k, *w) for k, w in zip(SHORT * 2, WRONG)])
def test_anchor_head__wrong_options(kind, options, match, make_model):
    with pytest.raises(ValueError, match=match):
        make_model(kind, sar=True, anchor_head=options)


@pytest.mark.parametrize('name', ['loss_anchor', 'loss_pull', 'loss_separation', 'anchor_acc', 'anchor_loss'])
def test_construction__loss_with_a_name_of_the_anchor_head(name, fcn):
    FCNHead, options, _ = fcn
    losses = [dict(type='mmseg.CrossEntropyLoss'), dict(type='mmseg.DiceLoss', loss_name=name)]
    for loss_decode in (losses, losses[1]):
        with pytest.raises(ValueError, match=f'`loss_name`.*loss_pull.*{name}'):
            with_semantic_anchors(FCNHead)(**options, loss_decode=loss_decode)


@pytest.mark.parametrize(
    ('loss', 'match'),
    [
        (dict(type='mmseg.CrossEntropyLoss'), r'loss_decode\.use_sigmoid` to be True'),
        (dict(type='mmseg.DiceLoss', use_sigmoid=False), r'loss_decode\.use_sigmoid` to be True'),
        (
            dict(type='mmseg.CrossEntropyLoss', use_sigmoid=True, class_weight=[1.0, 2.0]),
            r'class_weight.*\[1\.0, 2\.0\]',
        ),
    ],
)
def test_construction__loss_that_cannot_train_one_output(loss, match, fcn):
    FCNHead, options, _ = fcn
    options.update(num_classes=2, out_channels=1, threshold=0.5)
    with pytest.raises(ValueError, match=match):
        with_semantic_anchors(FCNHead)(**options, loss_decode=loss)
    with pytest.raises(ValueError, match=match):
        with_semantic_anchors(FCNHead)(**options, loss_decode=[dict(loss, loss_name='loss_first'), loss])


@pytest.mark.parametrize('class_weight', [None, [2.0]])
def test_construction__losses_of_one_output(class_weight, fcn, make_seg_samples):
    FCNHead, options, feats = fcn
    options.update(num_classes=2, out_channels=1, threshold=0.5)
    loss = dict(type='mmseg.CrossEntropyLoss', use_sigmoid=True, class_weight=class_weight)
    losses = with_semantic_anchors(FCNHead)(**options, loss_decode=loss).loss(
        feats, make_seg_samples(labels=(0, 1)), None
    )
    assert losses['loss_ce'] > 0
