import math

import pytest
import torch
import torch.nn.functional as F
from anchor_reference import KEYS, C, K, Reference, closed, make_batch, make_classifier, make_head, opened

import sar_mm  # noqa: F401


@pytest.mark.parametrize('kind', ['segmentation', 'classification'])
@pytest.mark.parametrize(
    'options', [dict(), dict(momentum=0.5, gate_threshold=0.6, confidence_threshold=0.7, anchor_weight=2.0)]
)
def test_anchor_head__equals_a_naive_reference_over_training(kind, options):
    settings = dict(momentum=0.999, gate_threshold=0.8, anchor_weight=1.0, pull_weight=0.1, confidence_threshold=0.9)
    settings.update(options)
    loss = {name: settings[name] for name in ('anchor_weight', 'pull_weight', 'confidence_threshold')}
    head = make_head(
        anchors=dict(type='SimplexETFAnchors'),
        momentum=settings['momentum'],
        gate_threshold=settings['gate_threshold'],
        loss=dict(type='SARLoss', **loss),
    )
    reference = Reference(head, **settings)
    mine, theirs = make_classifier(), make_classifier().double()
    optimizers = [
        torch.optim.SGD([*head.parameters(), *mine.parameters()], lr=0.3),
        torch.optim.SGD([*reference.projector.parameters(), *theirs.parameters()], lr=0.3),
    ]
    gates = []
    for step in range(30):
        if step == 15:  # an upset of the task classifier closes the gate again
            for classifier in (mine, theirs):
                with torch.no_grad():
                    classifier.weight.copy_(classifier.weight.roll(1, dims=0))
        data, target = make_batch(kind, seed=step, labels=(0, 1, 2, 3, 255, 254, -1))
        if kind == 'segmentation':
            target = target.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
            target[:, 1::2] = 3  # nearest neighbour reads the even rows and columns
        feature, feature64 = data.clone().requires_grad_(), data.double().requires_grad_()
        losses, expected = head.loss(feature, target, mine), reference.step(feature64, target, theirs)
        assert sorted(losses) == KEYS
        for name in KEYS:
            assert float(losses[name]) == pytest.approx(float(expected[name]), rel=2e-3, abs=1e-4), (step, name)
        # Rounding grows while the upset classifier learns again with a rate of 0.3.
        tolerance = 1e-4 if step < 15 else 1e-2
        assert torch.allclose(head.semantic_anchors.double(), reference.semantic, atol=tolerance), step
        assert bool(head.initialized.all()) is reference.initialized
        for optimizer, found in zip(optimizers, (losses, expected)):
            optimizer.zero_grad()
            (found['loss_anchor'] + found['loss_pull']).backward()
            optimizer.step()
        gradient = torch.zeros_like(data) if feature.grad is None else feature.grad
        assert torch.allclose(gradient.double(), feature64.grad, atol=1e-4), step
        assert torch.allclose(mine.weight.double(), theirs.weight, atol=2e-3), step
        gates.append(losses['anchor_gate'].item())
    assert gates[0] == 0 and 1.0 in gates[1:15] and gates[15] == 0


def test_anchor_head__averages_while_the_gate_is_open():
    head = make_head(momentum=0.75)
    feature, target = make_batch('classification')
    embedded = head.projector(head.anchors).detach()
    head.loss(feature, target, closed)
    assert torch.equal(head.semantic_anchors, torch.zeros(K, C)) and not head.initialized.any()

    head.loss(feature, target, opened)
    assert torch.equal(head.semantic_anchors, embedded) and head.initialized.all()

    with torch.no_grad():
        head.projector[-2].bias.add_(2)
    moved = head.projector(head.anchors).detach()
    assert (moved - embedded).abs().max() > 1
    head.loss(feature, target, opened)
    expected = 0.75 * embedded + 0.25 * moved
    assert torch.allclose(head.semantic_anchors, expected, atol=1e-6)

    kept = head.semantic_anchors.clone()
    losses = head.loss(feature, target, closed)
    assert torch.equal(head.semantic_anchors, kept) and head.initialized.all()
    assert losses['loss_pull'].item() == 0

    head.loss(feature, target, opened)
    assert torch.allclose(head.semantic_anchors, 0.75 * expected + 0.25 * moved, atol=1e-6)


@pytest.mark.parametrize('kind', ['segmentation', 'classification'])
def test_anchor_head__returns_the_same_keys_whatever_the_gate(kind):
    head = make_head()
    for classify in (closed, opened, closed, opened):
        losses = head.loss(*make_batch(kind), classify)
        assert sorted(losses) == KEYS
        assert [name for name in losses if 'loss' in name] == ['loss_anchor', 'loss_pull']
        for name, value in losses.items():
            assert value.shape == () and value.dtype == torch.float32
            assert value.requires_grad == (name == 'loss_anchor')
        assert losses['anchor_gate'].item() == float(classify is opened)
        assert losses['anchor_acc'].item() == (1.0 if classify is opened else 1 / K)
        own = math.exp(10) if classify is opened else 1.0
        expected = own / (own + K - 1) if classify is opened else 1 / (math.exp(10) + K - 1)
        assert losses['anchor_conf'].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('size', [(3, 4), (6, 8), (12, 16), (5, 7), (1, 1), (2, 3)])
def test_anchor_head__takes_labels_of_any_size(size):
    head = make_head()
    feature, _ = make_batch('segmentation')
    target = torch.randint(K + 1, (2,) + size, generator=torch.Generator().manual_seed(2))
    target[target == K] = 255
    anchors = head.projector(head.anchors).detach()
    total, number = 0.0, 0
    for n in range(2):
        for i in range(3):
            for j in range(4):
                label = target[n, i * size[0] // 3, j * size[1] // 4].item()
                if label != 255:
                    total += ((feature[n, :, i, j] - anchors[label]) ** 2).sum().item()
                    number += C
    losses = head.loss(feature, target, opened)
    assert losses['loss_pull'].item() == pytest.approx(0.1 * total / number, rel=1e-5)


def test_anchor_head__takes_soft_targets():
    feature, target = make_batch('classification', labels=(0, 1, 2, 3))
    hard, soft = (
        make_head().loss(feature, labels, opened)['loss_pull'].item()
        for labels in (target, F.one_hot(target, K).float())
    )
    assert hard > 0.01
    assert soft == pytest.approx(hard, rel=1e-6)


@pytest.mark.parametrize('kind', ['segmentation', 'classification'])
def test_anchor_head__pulls_nothing_where_all_is_ignored(kind):
    head = make_head()
    feature, target = make_batch(kind, labels=(255,))
    feature.requires_grad_()
    losses = head.loss(feature, target, opened)
    losses['loss_pull'].backward()
    assert losses['loss_pull'].item() == 0
    assert torch.equal(feature.grad, torch.zeros_like(feature))
    assert head.initialized.all()


@pytest.mark.parametrize('ignore_index', [None, 2, 255])
def test_anchor_head__leaves_out_the_ignored_index(ignore_index):
    head = make_head(ignore_index=ignore_index)
    feature, target = make_batch('classification', labels=(0, 2, 3, 200))
    anchors = head.projector(head.anchors).detach()
    rows = [i for i in range(8) if target[i] < K and target[i] != ignore_index]
    expected = sum(((feature[i] - anchors[target[i]]) ** 2).sum().item() for i in rows) / (C * len(rows))
    assert head.loss(feature, target, opened)['loss_pull'].item() == pytest.approx(0.1 * expected, rel=1e-5)


@pytest.mark.parametrize('kind', ['segmentation', 'classification'])
@pytest.mark.parametrize('is_open', [False, True])
def test_anchor_head__computes_in_float32_under_autocast(kind, is_open):
    found = []
    for enabled in (False, True):
        head, classifier = make_head(gate_threshold=0.8 if not is_open else 1e-6), make_classifier()
        if is_open:  # the classifier that reads the anchors off by least squares
            anchors = head.projector(head.anchors).detach()
            with torch.no_grad():
                classifier.weight.copy_(4 * torch.linalg.pinv(anchors).t())
        feature, target = make_batch(kind)
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=enabled):
            if enabled:
                feature = feature.bfloat16()
                assert classifier(torch.zeros(1, C)).dtype == torch.bfloat16
            losses = head.loss(feature, target, classifier)
        assert losses['anchor_gate'].item() == is_open
        assert head.semantic_anchors.dtype == torch.float32
        assert all(value.dtype == torch.float32 for value in losses.values())
        found.append((losses, head.semantic_anchors))
    for name in KEYS:
        # Only the features are rounded: whatever comes of the anchors is the same.
        tolerance = 1e-2 if name == 'loss_pull' else 0
        assert found[1][0][name].item() == pytest.approx(found[0][0][name].item(), rel=tolerance, abs=0)
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize('weights', [dict(), dict(anchor_weight=0.0, pull_weight=0.0)])
def test_anchor_head__gives_every_parameter_a_gradient_in_every_step(weights):
    head, classifier = make_head(loss=dict(type='SARLoss', **weights)), make_classifier()
    weight = 8 * torch.linalg.pinv(head.projector(head.anchors).detach()).t()
    for is_open in (False, True, False):
        with torch.no_grad():
            classifier.weight.copy_(weight if is_open else -weight)
        parameters = [*head.named_parameters(), *classifier.named_parameters()]
        feature, target = make_batch('segmentation')
        feature.requires_grad_()
        for _, parameter in parameters:
            parameter.grad = None
        losses = head.loss(feature, target, classifier)
        (losses['loss_anchor'] + losses['loss_pull']).backward()
        assert losses['anchor_gate'].item() == is_open
        assert len(parameters) == 13
        for name, parameter in parameters:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # Confident anchors have no loss; the pull reaches the features alone.
        if is_open or weights:
            assert all(torch.equal(p.grad, torch.zeros_like(p)) for _, p in parameters)
        else:
            assert all(p.grad.abs().max() > 0 for p in classifier.parameters())
        norm = feature.grad.abs().max().item()
        assert (norm > 1e-4) if is_open and not weights else norm == 0


def test_anchor_head__takes_two_losses_before_one_backward():
    head, single = make_head(momentum=0.5), make_head(momentum=0.5)
    batches = [make_batch('segmentation', seed=seed) for seed in range(2)]
    together = [feature.clone().requires_grad_() for feature, _ in batches]
    apart = [feature.clone().requires_grad_() for feature, _ in batches]
    losses = [head.loss(feature, target, opened) for feature, (_, target) in zip(together, batches)]
    sum(loss['loss_anchor'] + loss['loss_pull'] for loss in losses).backward()
    for feature, (_, target) in zip(apart, batches):
        loss = single.loss(feature, target, opened)
        (loss['loss_anchor'] + loss['loss_pull']).backward()
    for mine, theirs in zip(together, apart):
        assert mine.grad.abs().max() > 1e-4
        assert torch.equal(mine.grad, theirs.grad)
