import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sar_mm  # noqa: F401
from sar_mm.models import SemanticAnchorHead
from sar_mm.registry import MODELS

KEYS = ['anchor_acc', 'anchor_conf', 'anchor_cos', 'anchor_cos_mean', 'anchor_gate', 'loss_anchor', 'loss_pull']
K, C = 4, 6


def make_head(**options):
    # With so few channels, the embedded anchors of some seeds are linearly dependent: no classifier tells them apart.
    return SemanticAnchorHead(K, C, **{'seed': 3, **options})


def make_batch(kind, seed=0, labels=(0, 1, 2, 3, 255)):
    generator = torch.Generator().manual_seed(seed)
    shape = dict(segmentation=(2, C, 3, 4), classification=(8, C))[kind]
    feature = torch.randn(shape, generator=generator)
    choice = torch.randint(len(labels), shape[:1] + shape[2:], generator=generator)
    return feature, torch.tensor(labels)[choice]


def make_classifier(seed=0):
    classifier = nn.Linear(C, K)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        classifier.weight.copy_(0.3 * torch.randn(K, C, generator=generator))
        classifier.bias.zero_()
    return classifier


def opened(anchors):
    """Answer to every anchor with its class, in the graph."""
    return 10 * torch.eye(K) + 0 * anchors.sum()


def closed(anchors):
    """Answer to every anchor with the first class, in the graph."""
    return 10 * torch.eye(K)[[0] * K] + 0 * anchors.sum()


class Reference:
    """The method as its description says it, with Python decisions, plain layers and float64."""

    def __init__(self, head, momentum, gate_threshold, anchor_weight, pull_weight, confidence_threshold):
        self.anchors = head.anchors.double()
        self.projector = nn.ModuleList()
        for index in (0, 3, 6):
            weight = head.projector[index].weight
            linear = nn.Linear(weight.shape[1], C, bias=index != 6).double()
            norm = nn.BatchNorm1d(C).double()
            linear.load_state_dict(head.projector[index].state_dict())
            self.projector += [linear, norm]
        self.semantic = torch.zeros(K, C, dtype=torch.float64)
        self.initialized = False
        self.momentum = momentum
        self.gate_threshold, self.confidence_threshold = gate_threshold, confidence_threshold
        self.anchor_weight, self.pull_weight = anchor_weight, pull_weight

    def step(self, feature, target, classifier):
        embedded = self.anchors
        for layer in self.projector:
            embedded = layer(embedded)
            if isinstance(layer, nn.BatchNorm1d):
                embedded = embedded.clamp(min=0)
        logits = classifier(embedded)
        costs, right, smallest = [], 0, 1.0
        for k in range(K):
            log_probability = logits[k, k] - logits[k].logsumexp(0)
            costs.append(-log_probability)
            right += int(max(range(K), key=lambda j: logits[k, j].item()) == k)
            smallest = min(smallest, math.exp(log_probability.item()))
        doubtful = [cost for cost in costs if math.exp(-cost.item()) <= self.confidence_threshold]
        loss_anchor = 0 * logits.sum()
        if doubtful:
            loss_anchor = sum(cost * cost for cost in doubtful) / sum(doubtful)
        is_open = right == K and smallest > self.gate_threshold
        if is_open:
            if not self.initialized:
                self.semantic = embedded.detach().clone()
            else:
                self.semantic = self.momentum * self.semantic + (1 - self.momentum) * embedded.detach()
            self.initialized = True
        loss_pull = 0 * feature.sum()
        if is_open:
            rows, labels = feature, target
            if feature.dim() == 4:
                height, width = feature.shape[2:]
                rows = torch.stack(
                    [feature[n, :, i, j] for n in range(len(feature)) for i in range(height) for j in range(width)]
                )
                labels = [
                    target[n, i * target.shape[1] // height, j * target.shape[2] // width]
                    for n in range(len(feature))
                    for i in range(height)
                    for j in range(width)
                ]
            valid = [(row, int(label)) for row, label in zip(rows, labels) if 0 <= int(label) < K]
            for row, label in valid:
                loss_pull = loss_pull + ((row - self.semantic[label]) ** 2).sum() / (C * len(valid))
        cosines = []
        for j in range(K):
            for k in range(K):
                if j != k:
                    norms = embedded[j].norm().item() * embedded[k].norm().item()
                    cosines.append((embedded[j] @ embedded[k]).item() / norms if norms else 0.0)
        return dict(
            loss_anchor=self.anchor_weight * loss_anchor,
            loss_pull=self.pull_weight * loss_pull,
            anchor_acc=right / K,
            anchor_conf=smallest,
            anchor_gate=float(is_open),
            anchor_cos=max(cosines),
            anchor_cos_mean=sum(cosines) / len(cosines),
        )


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


def test_anchor_head__can_be_copied_and_restored_after_a_step():
    head = make_head(momentum=0.5)
    batch = make_batch('segmentation')
    head.loss(*batch, opened)
    clone, restored = copy.deepcopy(head), make_head(momentum=0.5)
    restored.load_state_dict(head.state_dict())
    expected = head.loss(*batch, opened)
    for other in (clone, restored):
        found = other.loss(*batch, opened)
        assert all(torch.equal(found[name], expected[name]) for name in KEYS)
        assert torch.equal(other.semantic_anchors, head.semantic_anchors)
        assert other.semantic_anchors.data_ptr() != head.semantic_anchors.data_ptr()


def test_anchor_head__depends_on_its_seeds_alone():
    torch.manual_seed(1)
    random_state = torch.get_rng_state()
    state = SemanticAnchorHead(K, C).state_dict()
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.manual_seed(2)
    again = MODELS.build(dict(type='SemanticAnchorHead', num_classes=K, channels=C)).state_dict()
    assert sorted(again) == sorted(state)
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert not torch.equal(make_head(seed=5).state_dict()['projector.0.weight'], state['projector.0.weight'])
    seeded = SemanticAnchorHead(K, C, anchors=dict(type='GaussianAnchors', seed=5)).state_dict()
    assert not torch.equal(seeded['anchors'], state['anchors'])


def test_anchor_head__embeds_anchors_of_another_dimension():
    head = make_head(anchors=dict(type='GaussianAnchors', dim=9))
    assert head.anchors.shape == (K, 9)
    head.loss(*make_batch('segmentation'), opened)
    assert head.semantic_anchors.shape == (K, C)
    assert torch.equal(head.semantic_anchors, head.projector(head.anchors))
    assert 'num_classes=4, channels=6, dim=9, momentum=0.999, gate_threshold=0.8, ignore_index=255' in repr(head)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('num_classes', 1),
        ('num_classes', 2.0),
        ('channels', 0),
        ('momentum', -0.1),
        ('momentum', 1.1),
        ('momentum', float('nan')),
        ('gate_threshold', 0),
        ('gate_threshold', 1),
        ('seed', -1),
        ('ignore_index', 'a'),
        ('ignore_index', 1.5),
    ],
)
def test_anchor_head__names_a_wrong_argument(name, value):
    with pytest.raises(ValueError, match=f'`{name}`.*but got {value!r}'):
        SemanticAnchorHead(**dict(dict(num_classes=K, channels=C), **{name: value}))


@pytest.mark.parametrize(
    ('anchors', 'match'),
    [
        (dict(type='Anchors'), "`anchors.type`.*GaussianAnchors.*but got 'Anchors'"),
        (dict(type='GaussianAnchors', dim=0), '`dim`.*but got 0'),
        (dict(type='GaussianAnchors', seed=-1), '`seed`.*but got -1'),
        (dict(type='OrthogonalAnchors', dim=3), '`dim`.*but got 3'),
        (dict(type='SimplexETFAnchors', dim=2), '`dim`.*but got 2'),
    ],
)
def test_anchor_head__names_wrong_anchors(anchors, match):
    with pytest.raises(ValueError, match=match):
        make_head(anchors=anchors)


# ----- Gate per class


def partly(anchors, right=(0, 2)):
    """Answer with the right class to some anchors only, in the graph."""
    answers = [k if k in right else (k + 1) % K for k in range(K)]
    return 10 * torch.eye(K)[answers] + 0 * anchors.sum()


def test_anchor_head__gate_per_class():
    head = make_head(momentum=0.75, gate_per_class=True)
    feature, target = make_batch('classification', labels=tuple(range(K)))
    feature.requires_grad_()
    embedded = head.projector(head.anchors).detach()
    losses = head.loss(feature, target, partly)
    assert losses['anchor_gate'].item() == pytest.approx(2 / K)
    expected = torch.zeros(K, C)
    expected[[0, 2]] = embedded[[0, 2]]
    assert torch.equal(head.semantic_anchors, expected)
    assert head.initialized.tolist() == [k in (0, 2) for k in range(K)]
    squares = sum((row - embedded[label]).square().sum() for row, label in zip(feature, target) if label in (0, 2))
    torch.testing.assert_close(losses['loss_pull'], 0.1 * squares / (C * len(target)))

    # Later the others open for the first time, while these two are averaged.
    with torch.no_grad():
        head.projector[7].bias.add_(0.5)
    second = head.projector(head.anchors).detach()
    head.loss(feature, target, lambda anchors: partly(anchors, right=range(K)))
    expected = second.clone()
    expected[[0, 2]] = 0.75 * embedded[[0, 2]] + 0.25 * second[[0, 2]]
    torch.testing.assert_close(head.semantic_anchors, expected)
    assert head.initialized.all()


def test_anchor_head__gate_per_class_equals_one_gate_when_all_are_open():
    feature, target = make_batch('segmentation', labels=(0, 1, 2, 255))
    logs = []
    for gate_per_class in (False, True):
        head = make_head(gate_per_class=gate_per_class)
        logs.append(head.loss(feature, target, lambda anchors: partly(anchors, right=range(K))))
    assert list(logs[0]) == list(logs[1])
    for name, value in logs[0].items():
        torch.testing.assert_close(logs[1][name], value)


def test_anchor_head__separation_penalty_reaches_the_projector():
    head = make_head(loss=dict(type='SARLoss', separation_weight=1.0, separation_margin=0.1))
    feature, target = make_batch('classification')
    losses = head.loss(feature, target, closed)
    assert losses['loss_separation'] > 0
    losses['loss_separation'].backward()
    assert head.projector[6].weight.grad.abs().sum() > 0


def test_anchor_head__types_of_parts_may_be_left_out():
    head = make_head(anchors=dict(dim=7), loss=dict(pull_weight=3.0))
    assert type(head.loss_module).__name__ == 'SARLoss' and head.loss_module.pull_weight == 3.0
    assert torch.equal(head.anchors, make_head(anchors=dict(type='GaussianAnchors', dim=7)).anchors)


# ----- Weights, and one step of two forward passes


@pytest.mark.parametrize('kind', ['classification', 'segmentation'])
def test_anchor_head__weights_of_the_features(kind):
    head = make_head(ignore_index=255)
    feature, target = make_batch(kind)
    weight = torch.rand(target.shape, generator=torch.Generator().manual_seed(1))
    weight[0] = 0
    pull = head.loss(feature, target, opened, weight)['loss_pull']
    weight = weight * (target != 255)
    distance = (feature.movedim(1, -1) - head.semantic_anchors[target * (target != 255)]).square().mean(dim=-1)
    torch.testing.assert_close(pull, 0.1 * (weight * distance).sum() / weight.sum())


@pytest.mark.parametrize(
    ('kind', 'weighted'),
    [
        ('classification', (False, False)),
        ('segmentation', (True, False)),
        ('classification', (False, True)),
        ('segmentation', (True, True)),
    ],
)
def test_loss__of_a_list_of_features_is_one_step_of_all(kind, weighted):
    head, classifier = make_head(momentum=0.5), make_classifier()
    batches = [make_batch(kind, seed) for seed in range(2)]
    weights = [torch.rand(target.shape) if given else None for given, (_, target) in zip(weighted, batches)]
    whole = copy.deepcopy(head)
    features, targets = zip(*batches)
    joined = [torch.ones(t.shape) if w is None else w for w, t in zip(weights, targets)]
    expected = whole.loss(torch.cat(features), torch.cat(targets), classifier, torch.cat(joined))
    losses = head.loss(features, targets, classifier, weights if any(weighted) else None)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    assert torch.equal(head.semantic_anchors, whole.semantic_anchors)


@pytest.mark.parametrize('weight', [None, torch.rand(8)])
def test_loss__of_a_list_of_one_feature(weight):
    feature, target = make_batch('classification')
    one, other = (
        make_head().loss(feature, target, opened, weight),
        make_head().loss([feature], [target], opened, [weight]),
    )
    assert one == other
