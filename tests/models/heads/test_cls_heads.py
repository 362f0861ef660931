"""SAR versions of mmpretrain's heads, fed with features directly: what holds for all of them."""

import copy

import numpy as np
import pytest
import torch
from cls_parts import LABELS, MULTI_LABEL, OPTIONS, PRESENT, SINGLE_LABEL, build, features, hard, joined, soft
from layer_inputs import seen_by

pytest.importorskip('mmpretrain.models')

from mmpretrain.models.utils import RandomBatchAugment  # noqa: E402

from sar_mm.models import SemanticAnchorHead  # noqa: E402
from sar_mm.models.heads import cls_heads  # noqa: E402

# The layer whose input is the feature.
FEATURE = dict(
    ArcFaceClsHead=lambda head: head.norm_product,
    CSRAClsHead=lambda head: head.csra_heads[1].head,
    EfficientFormerClsHead=lambda head: head.head,
    LeViTClsHead=lambda head: head.head.linear,
    LinearClsHead=lambda head: head.fc,
    MultiLabelLinearClsHead=lambda head: head.fc,
    NormedLinearClsHead=lambda head: head.fc,
    StackedLinearClsHead=lambda head: head.layers[1].dropout,
    VigClsHead=lambda head: head.drop,
    VisionTransformerClsHead=lambda head: head.layers.head,
)


def leaves(feats):
    return [leaf for each in feats for leaf in (each if isinstance(each, list) else [each])]


def samples_of(name):
    return hard(PRESENT if name in MULTI_LABEL else LABELS)


def expected_keys(name, added_keys):
    if name == 'ConformerHead':
        return {f'{branch}_{key}' for branch in ('conv', 'trans') for key in added_keys}
    return added_keys


def test_options__cover_every_head():
    assert sorted([f'SAR{name}' for name in OPTIONS] + ['SARMultiTaskHead']) == sorted(cls_heads.__all__)


@pytest.mark.parametrize('name', OPTIONS)
def test_matrix__loss_backward_predict(name, added_keys, open_all, layout):
    stock, sar = build(name, sar=False), build(name, sar=True)
    before = layout(sar)
    samples = samples_of(name)
    logs = []
    for head in (stock.train(), sar.train()):
        torch.manual_seed(1)
        feats = features(name)
        logs.append(head.loss(feats, samples))
    assert set(logs[1]) - set(logs[0]) == expected_keys(name, added_keys)
    assert all(torch.equal(value, logs[1][key]) for key, value in logs[0].items())
    assert all(value.isfinite().all() for value in logs[1].values())
    assert all(value > 0 for key, value in logs[1].items() if 'loss' in key)

    sum(value for key, value in logs[1].items() if 'loss' in key).backward()
    assert all(parameter.grad.isfinite().all() for parameter in sar.parameters())
    assert all(layer.weight.grad.any() for layer in sar.classifier_layers)
    firsts = [value.grad for key, value in sar.named_parameters() if key.endswith('projector.0.weight')]
    assert len(firsts) == (2 if name == 'ConformerHead' else 1) and all(grad.any() for grad in firsts)
    assert all(leaf.grad.isfinite().all() and leaf.grad.any() for leaf in leaves(feats))

    assert layout(sar) == before

    missing, unexpected = sar.load_state_dict(stock.state_dict(), strict=False)
    assert missing and all(key.startswith('anchor_head.') for key in missing) and not unexpected
    predictions = [head.eval().predict(features(name)) for head in (stock, sar)]
    for one, other in zip(*predictions):
        assert torch.equal(one.pred_score, other.pred_score) and torch.equal(one.pred_label, other.pred_label)


@pytest.mark.parametrize('name', OPTIONS)
def test_matrix__construction_leaves_stock_weights_and_the_random_state(name):
    heads, states = [], []
    for sar in (False, True):
        heads.append(build(name, sar))
        heads[-1].init_weights()
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    stock, sar = (head.state_dict() for head in heads)
    assert all(torch.equal(value, sar[key]) for key, value in stock.items())


@pytest.mark.parametrize('name', OPTIONS)
def test_matrix__deepcopy_records_its_own_features(name, open_all):
    head = build(name, sar=True).eval()  # without dropout
    head.loss(features(name), samples_of(name))
    twin = copy.deepcopy(head)
    losses = [each.loss(features(name), samples_of(name)) for each in (head, twin)]
    assert all(torch.equal(value, losses[1][key]) for key, value in losses[0].items())


@pytest.mark.parametrize('name', FEATURE)
def test_matrix__pull_is_that_of_the_feature(name, open_all):
    head = build(name, sar=True).train()
    feats = features(name)
    embedded = head.anchor_head.projector(head.anchor_head.anchors).detach()
    with seen_by(FEATURE[name](head)) as seen:
        losses = head.loss(feats, samples_of(name))
    feature = seen[0].mean((2, 3)) if name == 'CSRAClsHead' else seen[0]
    assert feature.shape == (6, 6)
    classes = PRESENT if name in MULTI_LABEL else [[label] for label in LABELS]
    squares = [(row - embedded[each].mean(0)).square().mean() for row, each in zip(feature, classes) if each]
    torch.testing.assert_close(losses['loss_pull'].detach(), 0.1 * torch.stack(squares).mean())


@pytest.mark.parametrize('name', SINGLE_LABEL)
def test_matrix__one_hot_scores_equal_hard_labels_exactly(name, open_all):
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 4)
    logs = [build(name, sar=True).eval().loss(features(name), samples) for samples in (hard(), soft(one_hot.float()))]
    added = [key for key in logs[0] if 'anchor' in key or 'pull' in key]
    assert added and all(torch.equal(logs[0][key], logs[1][key]) for key in added)


@pytest.mark.parametrize(('name', 'augment'), zip(SINGLE_LABEL, ['Mixup', 'CutMix'] * 5))
def test_matrix__batch_augments_pull_to_the_mixture(name, augment, open_all):
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 4)
    np.random.seed(0)
    torch.manual_seed(2)
    _, scores = RandomBatchAugment(dict(type=augment, alpha=1.0))(torch.randn(6, 3, 8, 8), one_hot)
    assert ((scores > 0).sum(1) == 2).any()
    head = build(name, sar=True).train()
    seen = []
    for anchor_head in [m for m in head.modules() if isinstance(m, SemanticAnchorHead)]:
        loss = anchor_head.loss
        anchor_head.loss = lambda feature, target, classify, weight, loss=loss, anchor_head=anchor_head: (
            seen.append((joined(feature).detach(), anchor_head)) or loss(feature, target, classify, weight)
        )
    losses = head.loss(features(name), soft(scores))
    pulls = [value for key, value in losses.items() if key.endswith('loss_pull')]
    assert len(pulls) == len(seen) == (2 if name == 'ConformerHead' else 1)
    for pull, (feature, anchor_head) in zip(pulls, seen):
        rows = scores.tolist() * (len(feature) // len(LABELS))
        total = 0
        for row, weights in zip(feature, rows):
            centre = sum(weight * anchor_head.semantic_anchors[index] for index, weight in enumerate(weights))
            total += (row - centre).square().mean()
        torch.testing.assert_close(pull.detach(), 0.1 * total / len(feature))


def test_linear__scores_may_be_integers(open_all):
    # The data preprocessor's to_onehot makes such scores where nothing mixes them.
    soft_loss = dict(type='mmpretrain.CrossEntropyLoss', use_soft=True)
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 4)
    logs = [
        build('LinearClsHead', sar=True, loss=soft_loss).loss(features('LinearClsHead'), soft(scores))
        for scores in (one_hot, one_hot.float())
    ]
    assert all(torch.equal(value, logs[1][key]) for key, value in logs[0].items())


@pytest.mark.parametrize('name', MULTI_LABEL)
def test_multi_label__unknown_classes_and_weights(name, open_all):
    scores = torch.tensor([[1.0, -1, 0, 0]] * 3 + [[0.5, 0, 1.5, 0]] * 2 + [[0.0, 0, 0, 0]])
    same = torch.tensor([[1.0, 0, 0, 0]] * 3 + [[0.25, 0, 0.75, 0]] * 2 + [[0.0, 0, 0, 0]])
    logs = [build(name, sar=True).loss(features(name), soft(each)) for each in (scores, same)]
    torch.testing.assert_close(logs[0]['loss_pull'], logs[1]['loss_pull'])
    assert logs[0]['loss_pull'] > 0
