"""Options of anchor heads: seeds, wrong arguments, gates per class, weights, and lists of features."""

import copy

import pytest
import torch
from anchor_reference import KEYS, C, K, closed, make_batch, make_classifier, make_head, opened

import sar_mm  # noqa: F401
from sar_mm.models import SemanticAnchorHead
from sar_mm.registry import MODELS


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
        ('matmul_dtype', 'float16'),
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


def test_anchor_head__bfloat16_rounds_matrix_products_alone():
    batch, found = make_batch('classification'), {}
    for dtype in ('float32', 'bfloat16', 'auto'):
        head, classifier = make_head(matmul_dtype=dtype, gate_threshold=1e-6), make_classifier()
        dtypes: list = []
        with torch.no_grad():  # the classifier that reads the anchors off by least squares
            classifier.weight.copy_(4 * torch.linalg.pinv(head.projector(head.anchors)).t())
        for layer in (*head.projector, classifier):
            layer.register_forward_hook(
                lambda _, given, made, dtypes=dtypes: dtypes.append((given[0].dtype, made.dtype))
            )
        losses = head.loss(*batch, classifier)
        assert all(value.dtype == torch.float32 for value in losses.values())
        assert head.semantic_anchors.dtype == torch.float32 and losses['anchor_gate'] == 1
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        gradients = [each.grad for each in (*head.parameters(), *classifier.parameters())]
        assert all(each.dtype == torch.float32 for each in gradients)
        found[dtype] = head.semantic_anchors, losses['anchor_conf'], dtypes
    half, single = torch.bfloat16, torch.float32
    assert found['bfloat16'][2] == 3 * [(single, half), (half, single), (single, single)] + [(single, half)]
    assert found['auto'][2] == found['float32'][2] == 10 * [(single, single)]
    for exact, rounded in zip(found['float32'][:2], found['bfloat16'][:2]):
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
        assert not torch.equal(rounded, exact)
    assert torch.equal(found['auto'][0], found['float32'][0])
