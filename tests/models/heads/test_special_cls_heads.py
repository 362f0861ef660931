"""SAR versions of mmpretrain's heads: what is special about some, such as several branches or labels."""

import pytest
import torch
from cls_parts import LABELS, MULTI_LABEL, OPTIONS, PRESENT, build, features, hard, soft
from layer_inputs import seen_by

pytest.importorskip('mmpretrain.models')

import mmpretrain.models.heads as stock_heads  # noqa: E402

from sar_mm.models.heads import cls_heads, with_semantic_anchors  # noqa: E402


def test_stacked__without_dropout(open_all):
    head = build('StackedLinearClsHead', sar=True, dropout_rate=0.0).train()
    with seen_by(head.layers[-1].fc) as seen:
        losses = head.loss(features('StackedLinearClsHead'), hard())
    squares = (seen[0] - head.anchor_head.semantic_anchors[LABELS]).square().mean()
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * squares)


@pytest.mark.parametrize('name', ['ConformerHead', 'DeiTClsHead'])
def test_branches__a_head_that_hides_its_features(name):
    class Odd(getattr(stock_heads, name)):
        def loss(self, feats, data_samples):
            return dict(loss=feats[0][0].sum())

    head = with_semantic_anchors(Odd)(num_classes=4, **OPTIONS[name])
    with pytest.raises(
        RuntimeError, match='SAROdd should see a feature per step, one of 6 channels and one of .* saw none'
    ):
        head.loss(features(name), hard())


def test_deit__both_tokens_have_the_same_anchors(open_all):
    head = build('DeiTClsHead', sar=True)
    embedded = head.anchor_head.projector(head.anchor_head.anchors).detach()
    expected = (head.layers.head(embedded) + head.layers.head_dist(embedded)) / 2
    torch.testing.assert_close(head.classify(embedded), expected)
    feats = features('DeiTClsHead')
    losses = head.loss(feats, hard())
    tokens = [token.detach() for token in head.pre_logits(feats)]
    squares = [(token - embedded[LABELS]).square().mean() for token in tokens]
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * sum(squares) / 2)


def test_conformer__each_branch_has_its_own_anchors(open_all):
    head = build('ConformerHead', sar=True, anchor_head=dict(loss=dict(type='SARLoss', pull_weight=2.0)))
    feats = features('ConformerHead')
    losses = head.loss(feats, hard())
    for branch, feature, channels in zip(('conv', 'trans'), feats[0], (6, 8)):
        anchors = head.anchor_head[branch].semantic_anchors
        assert anchors.shape == (4, channels)
        expected = 2.0 * (feature.detach() - anchors[LABELS]).square().mean()
        torch.testing.assert_close(losses[f'{branch}_loss_pull'].detach(), expected)
        assert losses[f'{branch}_anchor_gate'] == 1


def test_arcface__anchors_are_classified_by_the_scaled_cosine():
    head = build('ArcFaceClsHead', sar=True, num_subcenters=3, scale=16.0)
    anchors = torch.randn(4, 6)
    unit, weight = (torch.nn.functional.normalize(each, dim=1) for each in (anchors, head.norm_product.weight.detach()))
    expected = 16 * (unit @ weight.t()).view(4, 4, 3).amax(2)
    torch.testing.assert_close(head.classify(anchors).detach(), expected)


def test_csra__anchors_are_classified_like_an_even_feature_map():
    head = build('CSRAClsHead', sar=True).eval()
    anchors = torch.randn(4, 6)
    expected = head((anchors[:, :, None, None].expand(-1, -1, 3, 2),))
    torch.testing.assert_close(head.classify(anchors), expected)


@pytest.mark.parametrize('name', MULTI_LABEL)
def test_multi_label__scores_equal_labels(name, open_all):
    scores = torch.zeros(6, 4)
    for row, present in zip(scores, PRESENT):
        row[present] = 1
    logs = [build(name, sar=True).loss(features(name), samples) for samples in (hard(PRESENT), soft(scores))]
    assert all(torch.equal(value, logs[1][key]) for key, value in logs[0].items())


def test_multi_label__own_head(open_all):
    class Own(stock_heads.MultiLabelClsHead):
        def __init__(self):
            super().__init__()
            self.score = torch.nn.Linear(6, 4)

        def forward(self, feats):
            return self.score(feats[-1])

    head = with_semantic_anchors(Own, classifier='score')()
    feats = features('MultiLabelLinearClsHead')
    losses = head.loss(feats, hard(PRESENT))
    anchors = head.anchor_head.semantic_anchors
    squares = [(row - anchors[each].mean(0)).square().mean() for row, each in zip(feats[0].detach(), PRESENT) if each]
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * torch.stack(squares).mean())


@pytest.mark.parametrize('name', ['EfficientFormerClsHead', 'LeViTClsHead'])
@pytest.mark.parametrize('options', [dict(), dict(distillation=True)], ids=['default', 'set'])
def test_distilled__is_refused(name, options):
    given = {key: value for key, value in OPTIONS[name].items() if key != 'distillation'}
    with pytest.raises(ValueError, match='`distillation` to be False, as .* cannot train with it, but got True'):
        getattr(cls_heads, f'SAR{name}')(num_classes=4, **given, **options)


def test_linear__one_class_has_no_anchors():
    with pytest.raises(ValueError, match='`num_classes` to be an integer of at least 2, but got 1'):
        cls_heads.SARLinearClsHead(num_classes=1, in_channels=6)
