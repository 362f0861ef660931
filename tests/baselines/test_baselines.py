"""The baselines against naive formulas, in heads, and over two processes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sar_mm.baselines import BalancedFeaturesHead, CenterLossHead, PrototypeHead, SupervisedContrastiveHead
from sar_mm.baselines.class_sums import class_sums
from sar_mm.baselines.supervised_contrastive import supervised_contrastive_loss
from sar_mm.registry import MODELS

K, C = 4, 6
HEADS = [BalancedFeaturesHead, CenterLossHead, PrototypeHead, SupervisedContrastiveHead]
DENSE = [CenterLossHead, PrototypeHead]


def batch(seed, number=10, classes=K):
    generator = torch.Generator().manual_seed(seed)
    feature = torch.randn(number, C, generator=generator)
    return feature.requires_grad_(), torch.randint(classes, (number,), generator=generator)


def classifier(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(C, K)


# ----- Class sums


def test_class_sums__equal_a_loop_over_pixels():
    feature = torch.randn(2, C, 3, 5)
    target = torch.randint(K, (2, 3, 5))
    target[0, 0] = 255
    target[1, 2, 2] = -1
    weight = torch.rand(2, 3, 5)
    sums, number = class_sums(feature, target, K, 255, weight)
    expected, weights = torch.zeros(K, C), torch.zeros(K)
    for n in range(2):
        for y in range(3):
            for x in range(5):
                label = target[n, y, x].item()
                if 0 <= label < K:
                    expected[label] += weight[n, y, x] * feature[n, :, y, x]
                    weights[label] += weight[n, y, x]
    assert torch.allclose(sums, expected, atol=1e-5) and torch.allclose(number, weights, atol=1e-5)


def test_class_sums__of_class_probabilities_and_an_ignored_class():
    feature = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    sums, number = class_sums(feature, torch.tensor([[0.25, 0.75], [1.0, 0.0]]), 2, None)
    assert sums.tolist() == [[3.25, 4.5], [0.75, 1.5]] and number.tolist() == [1.25, 0.75]
    sums, number = class_sums(feature, torch.tensor([0, 1]), 2, ignore_index=1)
    assert sums.tolist() == [[1.0, 2.0], [0.0, 0.0]] and number.tolist() == [1.0, 0.0]


# ----- Prototypes


def test_prototypes__are_moving_averages_of_class_means():
    head = PrototypeHead(K, C, momentum=0.9, weight=0.5).train()
    expected = {}
    for step in range(5):
        feature, target = batch(step, classes=3)  # class 3 never occurs
        losses = head.loss(feature, target, classifier())
        for k in target.unique().tolist():
            mean = feature[target == k].detach().mean(dim=0)
            expected[k] = 0.9 * expected[k] + 0.1 * mean if k in expected else mean
        distance = [(feature[i] - expected[target[i].item()]).square().sum() for i in range(len(feature))]
        assert losses['loss_pull'].item() == pytest.approx(0.5 * (sum(distance) / (C * len(feature))).item(), rel=1e-5)
        assert losses['prototypes'] == len(expected) / K
    for k in range(K):
        assert torch.allclose(head.semantic_anchors[k], expected.get(k, torch.zeros(C)), atol=1e-5)
    (grad,) = torch.autograd.grad(losses['loss_pull'], feature)
    wanted = torch.stack([expected[k] for k in target.tolist()])
    assert torch.allclose(grad, 0.5 * 2 / (C * len(feature)) * (feature - wanted).detach(), atol=1e-6)


def test_prototypes__a_class_without_one_is_not_pulled():
    head = PrototypeHead(K, C).eval()
    feature, target = batch(0)
    assert head.loss(feature, target, classifier())['loss_pull'].item() == 0
    assert not head.semantic_anchors.any()


# ----- Center loss


def test_center_loss__formula_and_update_of_the_paper():
    head = CenterLossHead(K, C, weight=0.3, alpha=0.25).train()
    centers = torch.zeros(K, C)
    for step in range(4):
        feature, target = batch(step)
        loss = head.loss(feature, target, classifier())['loss_pull']
        sums = sum(0.5 * (feature[i] - centers[target[i]]).square().sum() for i in range(len(feature)))
        assert loss.item() == pytest.approx(0.3 * sums.item() / len(feature), rel=1e-5)
        for k in range(K):
            mine = feature[target == k].detach()
            centers[k] -= 0.25 * (centers[k] - mine).sum(dim=0) / (1 + len(mine))
        assert torch.allclose(head.semantic_anchors, centers, atol=1e-5)


# ----- Supervised contrastive loss


def naive_contrast(z, target, temperature):
    rows = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i and target[a] >= 0]
        positives = [p for p in others if target[p] == target[i]]
        if target[i] < 0 or not positives:
            continue
        total = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in others)
        terms = [math.log(math.exp(float(z[i] @ z[p]) / temperature) / total) for p in positives]
        rows.append(-sum(terms) / len(positives))
    return sum(rows) / len(rows) if rows else 0.0


@pytest.mark.parametrize('target', [[0, 0, 1, 1, 1, 2], [0, 1, 2, 3, 3, -1], [0, 1, 2, 3, -1, -1], [-1] * 6])
def test_supervised_contrastive__equals_the_naive_formula(target):
    z = F.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
    z.requires_grad_()
    loss = supervised_contrastive_loss(z, torch.tensor(target), 0.2)
    assert loss.item() == pytest.approx(naive_contrast(z.detach(), target, 0.2), abs=1e-9)
    (grad,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(grad).all()


def test_supervised_contrastive__gradient_is_right():
    z = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 0, 1, 1, 2, -1])
    assert torch.autograd.gradcheck(lambda x: supervised_contrastive_loss(F.normalize(x, dim=1), target, 0.5), z)


def test_supervised_contrastive__leaves_out_ignored_and_weightless_images():
    head = SupervisedContrastiveHead(K, C, ignore_index=2)
    feature, target = batch(3)
    weight = torch.ones(len(target))
    weight[0] = 0
    keep = (target != 2) & (weight > 0)
    whole = head.loss(feature, target, classifier(), weight)['loss_contrast']
    part = head.loss(feature[keep], target[keep], classifier())['loss_contrast']
    assert whole.item() == pytest.approx(part.item(), rel=1e-5)


def test_supervised_contrastive__builds_without_the_global_random_state():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = SupervisedContrastiveHead(K, C), SupervisedContrastiveHead(K, C)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


# ----- Balanced features


def test_balanced_features__one_feature_of_every_class_seen():
    head, layer = BalancedFeaturesHead(K, C, weight=2.0).train(), classifier()
    newest = {}
    for step in range(4):
        feature, target = batch(step, number=5, classes=3)
        target[2] = 255
        loss = head.loss(feature, target, layer)['loss_anchor']
        rows = dict(newest)
        for i, k in enumerate(target.tolist()):
            if k < K:
                rows[k] = feature[i]
        costs = [F.cross_entropy(layer(row)[None], torch.tensor([k])) for k, row in rows.items()]
        assert loss.item() == pytest.approx(2 * (sum(costs) / len(costs)).item(), rel=1e-5)
        (grad,) = torch.autograd.grad(loss, feature, retain_graph=True)
        used = {max(i for i, k in enumerate(target.tolist()) if k == label) for label in set(target.tolist()) - {255}}
        assert {i for i in range(5) if grad[i].any()} == used
        newest = {k: row.detach() for k, row in rows.items()}
    assert not head.newest[3].any()


# ----- The fixed classifier


def test_etf__classifier_and_dot_regression():
    pytest.importorskip('mmpretrain.models')
    head = MODELS.build(dict(type='ETFClsHead', num_classes=K, in_channels=C))
    assert not list(head.parameters())
    cosines = head.fc.weight @ head.fc.weight.t()
    assert torch.allclose(cosines, torch.full((K, K), -1 / (K - 1)).fill_diagonal_(1.0), atol=1e-5)
    feature, target = batch(0)
    score = head.fc(feature)
    expected = [0.5 * (F.cosine_similarity(f, head.fc.weight[k], dim=0) - 1) ** 2 for f, k in zip(feature, target)]
    assert head.loss_module(score, target).item() == pytest.approx((sum(expected) / len(expected)).item(), rel=1e-5)
    weight = torch.rand(len(target))
    loss = head.loss_module(score, target, weight, avg_factor=3.0)
    assert loss.item() == pytest.approx((sum(w * e for w, e in zip(weight, expected)) / 3).item(), rel=1e-5)


# ----- In heads


@pytest.mark.parametrize('kind', HEADS)
@pytest.mark.parametrize('mode', ['eval', 'no_grad'])
def test_baseline__a_loss_for_validation_changes_nothing(kind, mode):
    head = kind(K, C)
    head.train(mode == 'no_grad')
    before = {name: value.clone() for name, value in head.state_dict().items()}
    with torch.set_grad_enabled(mode != 'no_grad'):
        assert all(torch.isfinite(value) for value in head.loss(*batch(0), classifier()).values())
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize('kind', HEADS)
def test_baseline__trains_in_a_classification_head(kind):
    pytest.importorskip('mmpretrain.models')
    from mmpretrain.structures import DataSample

    head = MODELS.build(
        dict(type='SARLinearClsHead', num_classes=K, in_channels=C, anchor_head=dict(type=kind.__name__))
    )
    assert type(head.anchor_head) is kind
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for step in range(3):
        feature, target = batch(step)
        losses = head.loss((feature,), [DataSample().set_gt_label(label) for label in target])
        total = sum(value for name, value in losses.items() if 'loss' in name)
        optimizer.zero_grad()
        total.backward()
        assert all(parameter.grad is not None for parameter in head.parameters())
        optimizer.step()


@pytest.mark.parametrize('kind', HEADS)
@pytest.mark.parametrize('case', ['autocast', 'bfloat16', 'float64'])
def test_baseline__in_other_precisions(kind, case):
    head, layer = kind(K, C).train(), classifier()
    feature, target = batch(0)
    expected = sum(value for name, value in kind(K, C).train().loss(feature, target, layer).items() if 'loss' in name)
    if case != 'autocast':
        dtype = getattr(torch, case)
        head, layer, feature = head.to(dtype), layer.to(dtype), feature.detach().to(dtype).requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=case == 'autocast'):
        seen = feature.bfloat16() if case == 'autocast' else feature
        found = sum(value for name, value in head.loss(seen, target, layer).items() if 'loss' in name)
    assert found.item() == pytest.approx(expected.item(), rel=0.05)
    assert torch.autograd.grad(found, feature)[0].isfinite().all()
    assert all(buffer.dtype == torch.float32 for buffer in head.buffers())


@pytest.mark.parametrize('kind', DENSE)
def test_baseline__pixels_are_features_like_images(kind):
    dense, flat = kind(K, C).train(), kind(K, C).train()
    feature, target = torch.randn(2, C, 3, 4), torch.randint(K, (2, 3, 4))
    target[0, 0, 0] = 255
    one = dense.loss(feature, target, classifier())
    two = flat.loss(feature.movedim(1, -1).reshape(-1, C), target.flatten(), classifier())
    assert one['loss_pull'].item() == pytest.approx(two['loss_pull'].item(), rel=1e-5)
    assert torch.allclose(dense.semantic_anchors, flat.semantic_anchors, atol=1e-6)


@pytest.mark.parametrize('kind', [SupervisedContrastiveHead, BalancedFeaturesHead])
def test_baseline__of_images_refuses_pixels(kind):
    with pytest.raises(ValueError, match='features \\(N, C\\) and class indices \\(N,\\) of images'):
        kind(K, C).loss(torch.randn(2, C, 3, 4), torch.zeros(2, 3, 4, dtype=torch.long), classifier())


@pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [
        (PrototypeHead, dict(momentum=1.5), '`momentum` to be a number in'),
        (PrototypeHead, dict(weight=-1), '`weight` to be a finite number of at least 0, but got -1'),
        (CenterLossHead, dict(alpha=2), '`alpha` to be a number in'),
        (SupervisedContrastiveHead, dict(temperature=0), '`temperature` to be a finite number above 0'),
        (BalancedFeaturesHead, dict(num_classes=1), '`num_classes` to be an integer of at least 2'),
    ],
)
def test_baseline__bad_arguments(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**{'num_classes': K, 'channels': C, **options})
