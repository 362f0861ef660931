"""The pull by hand and by loops: labels, mixtures, gates, weights, and shapes that do not match."""

import pytest
import torch
import torch.nn.functional as F

import sar_mm  # noqa: F401
from sar_mm.ops import pull_loss


def pull_by_loops(feature, target, anchors, ignore_index=None):
    """Value and gradient of the pull for lists: features (N, C) and labels (N,)."""
    total, valid = 0.0, []
    for i, label in enumerate(target):
        if 0 <= label < len(anchors) and label != ignore_index:
            valid.append(i)
            for c, value in enumerate(feature[i]):
                total += (value - anchors[label][c]) ** 2
    number = max(len(valid), 1) * len(anchors[0])
    gradient = [[0.0] * len(anchors[0]) for _ in feature]
    for i in valid:
        for c, value in enumerate(feature[i]):
            gradient[i][c] = 2 * (value - anchors[target[i]][c]) / number
    return total / number, gradient


def make(shape, num_classes, labels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    feature = torch.randn(shape, generator=generator)
    anchors = torch.randn(num_classes, shape[1], generator=generator)
    choice = torch.randint(len(labels), shape[:1] + shape[2:], generator=generator)
    return feature, torch.tensor(labels)[choice], anchors


def flatten(feature, target):
    rows = feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1]) if feature.dim() == 4 else feature
    return rows.tolist(), target.reshape(-1).tolist()


@pytest.mark.parametrize(
    ('labels', 'ignore_index', 'dtype'),
    [
        ([0, 1, 2, 3, 4], None, torch.int32),
        ([0, 1, 2, 3, 4, 255], 255, torch.uint8),
        ([0, 1, 2, 3, 4, 255, -1, 5, 17], None, torch.int64),
        ([0, 1, 2, 3, 4, 255, -1, 5], 2, torch.int32),
        ([0, 4], 255, torch.uint8),
        ([3], 255, torch.int64),
        ([255], 255, torch.uint8),
        ([2], 2, torch.int64),
        ([-1, 5, 255], None, torch.int32),
        ([5, 255], None, torch.uint8),
    ],
)
@pytest.mark.parametrize('shape', [(9, 6), (2, 6, 4, 5)])
def test_pull_loss__equals_loops(shape, labels, ignore_index, dtype):
    feature, target, anchors = make(shape, 5, labels)
    value, gradient = pull_by_loops(*flatten(feature, target), anchors.tolist(), ignore_index)

    feature.requires_grad_()
    anchors.requires_grad_()
    loss = pull_loss(feature, target.to(dtype), anchors, ignore_index)
    loss.backward()
    assert loss.shape == () and loss.dtype == torch.float32
    assert loss.item() == pytest.approx(value, rel=1e-5)
    assert torch.allclose(torch.tensor(flatten(feature.grad, target)[0]), torch.tensor(gradient), atol=1e-7)
    assert anchors.grad is None


@pytest.mark.parametrize('label', [255, -1, 5])
def test_pull_loss__is_zero_where_nothing_is_valid(label):
    feature = torch.randn(3, 4, requires_grad=True)
    loss = pull_loss(feature, torch.full((3,), label), torch.randn(5, 4), 255)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(feature.grad, torch.zeros(3, 4))


def test_pull_loss__equals_hand_computed():
    feature = torch.tensor([[1.0, 2.0], [0.0, 0.0], [5.0, 5.0]])
    anchors = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    # (0 + 4) + (9 + 16) over two channels and two valid rows
    assert pull_loss(feature, torch.tensor([0, 1, 255]), anchors, 255).item() == 29 / 4
    assert pull_loss(feature, torch.tensor([0, 1, 0]), anchors, 0).item() == 25 / 2


@pytest.mark.parametrize('num_classes', [256, 300])
def test_pull_loss__takes_uint8_labels_of_many_classes(num_classes):
    feature, target, anchors = make((40, 3), num_classes, list(range(256)))
    value, _ = pull_by_loops(feature.tolist(), target.tolist(), anchors.tolist())
    assert pull_loss(feature, target.byte(), anchors).item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize('ignore_index', [-100, 256 + 3, 65535])
def test_pull_loss__takes_uint8_labels_with_any_ignore_index(ignore_index):
    feature, target, anchors = make((30, 3), 200, [3, 156, 199, 255])
    value, _ = pull_by_loops(feature.tolist(), target.tolist(), anchors.tolist(), ignore_index)
    assert pull_loss(feature, target.byte(), anchors, ignore_index).item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
def test_pull_loss__equals_loops_with_soft_targets(dtype):
    generator = torch.Generator().manual_seed(4)
    feature, anchors = torch.randn(6, 5, generator=generator), torch.randn(3, 5, generator=generator)
    target = torch.rand(6, 3, generator=generator).softmax(dim=1).to(dtype)
    total = 0.0
    gradient = torch.zeros(6, 5)
    for i in range(6):
        for c in range(5):
            centre = sum(target[i, k].item() * anchors[k, c].item() for k in range(3))
            total += (feature[i, c].item() - centre) ** 2
            gradient[i, c] = 2 * (feature[i, c].item() - centre) / 30

    feature.requires_grad_()
    anchors.requires_grad_()
    loss = pull_loss(feature, target, anchors, 255)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(total / 30, rel=1e-5)
    assert torch.allclose(feature.grad, gradient, atol=1e-6)
    assert anchors.grad is None


def test_pull_loss__one_hot_equals_hard():
    feature, target, anchors = make((12, 6), 4, [0, 1, 2, 3])
    soft = pull_loss(feature, F.one_hot(target, 4).float(), anchors)
    assert soft.item() == pytest.approx(pull_loss(feature, target, anchors).item(), rel=1e-6)


@pytest.mark.parametrize('shape', [(9, 6), (2, 6, 4, 5)])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_pull_loss__is_float32_for_half_features(shape, dtype):
    feature, target, anchors = make(shape, 5, [0, 1, 2, 3, 4, 255])
    loss = pull_loss(feature.to(dtype), target, anchors, 255)
    assert loss.dtype == torch.float32
    # Exact for the rounded features, close for the original ones.
    assert torch.equal(loss, pull_loss(feature.to(dtype).float(), target, anchors, 255))
    assert loss.item() == pytest.approx(pull_loss(feature, target, anchors, 255).item(), rel=5e-3)


@pytest.mark.parametrize(
    ('feature', 'target', 'anchors'),
    [
        ((4, 3), (5,), (2, 3)),
        ((4, 3), (4, 1), (2, 3)),
        ((4, 3), (4,), (2, 5)),
        ((2, 3, 4, 5), (2, 5, 4), (2, 3)),
        ((2, 3, 4, 5), (2,), (2, 3)),
        ((2, 3, 4, 5), (1, 4, 5), (2, 3)),
    ],
)
def test_pull_loss__names_shapes_that_do_not_match(feature, target, anchors):
    with pytest.raises(ValueError, match='target of shape'):
        pull_loss(torch.zeros(feature), torch.zeros(target, dtype=torch.int64), torch.zeros(anchors))


@pytest.mark.parametrize('target', [(4, 3), (5, 2), (4,)])
def test_pull_loss__names_soft_shapes_that_do_not_match(target):
    with pytest.raises(ValueError, match=r'target of shape \(4, 2\)'):
        pull_loss(torch.zeros(4, 3), torch.zeros(target), torch.zeros(2, 3))


def weighted_by_loops(feature, target, anchors, ignore_index, gate, class_balanced):
    """The pull in float64 with loops: features (N, C), and rows of probabilities or labels."""
    rows = []
    for vector, label in zip(feature.double(), target):
        if torch.is_tensor(label) and label.dim():
            masses = label.double()
        else:
            masses = torch.zeros(len(anchors), dtype=torch.float64)
            if 0 <= label < len(anchors) and label != ignore_index:
                masses[label] = 1
        if masses.sum() > 0:
            distance = (vector - masses @ anchors.double()).square().mean()
            is_open = all(gate is None or gate[k] for k in range(len(anchors)) if masses[k] > 0)
            rows.append((distance * is_open, masses))
    if not class_balanced:
        return sum(distance for distance, _ in rows) / max(len(rows), 1)
    means = []
    for k in range(len(anchors)):
        mass = sum(masses[k] for _, masses in rows)
        if mass > 0:
            means.append(sum(distance * masses[k] for distance, masses in rows) / mass)
    return sum(means) / max(len(means), 1)


@pytest.mark.parametrize('class_balanced', [False, True])
@pytest.mark.parametrize('gate', [None, [1, 0, 1, 1, 0]])
@pytest.mark.parametrize('kind', ['rows', 'maps', 'soft', 'nothing'])
def test_pull_loss__gate_and_class_balance(kind, gate, class_balanced):
    labels = [255] if kind == 'nothing' else [0, 0, 0, 0, 1, 2, 3, 255, 7]
    feature, target, anchors = make((2, 6, 4, 5) if kind == 'maps' else (30, 6), 5, labels)
    rows, goals = feature, target
    if kind == 'maps':
        rows, goals = feature.permute(0, 2, 3, 1).reshape(-1, 6), target.flatten()
    if kind == 'soft':
        target = torch.rand(30, 5, generator=torch.Generator().manual_seed(1)).relu() * F.one_hot(target % 5, 5)
        target[:10, 2] += 0.3
        target[11] = 0
        goals = target
    feature.requires_grad_()
    gates = None if gate is None else torch.tensor(gate).float()
    loss = pull_loss(feature, target, anchors, 255, gates, class_balanced)
    expected = weighted_by_loops(rows, goals, anchors, 255, gate, class_balanced)
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    assert (loss.item() == 0) == (kind == 'nothing')
    loss.backward()
    assert feature.grad.isfinite().all()


def test_pull_loss__class_balance_makes_rare_classes_pull_as_hard():
    target = torch.tensor([0] * 99 + [1])
    anchors = torch.tensor([[0.0], [0.0]])
    feature = torch.ones(100, 1, requires_grad=True)
    pull_loss(feature, target, anchors, class_balanced=True).backward()
    assert feature.grad[:99].sum().item() == pytest.approx(feature.grad[99].item()) == pytest.approx(1.0)


def test_pull_loss__points():
    feature, target, anchors = make((2, 6, 4, 5), 5, [0, 1, 2, 3, 4, 255])
    expected = pull_loss(feature, target, anchors, 255)
    torch.testing.assert_close(pull_loss(feature.flatten(2), target.flatten(1), anchors, 255), expected)


def test_pull_loss__class_balance_takes_weighted_means():
    feature, target = torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([0, 0, 1])
    weight = torch.tensor([3.0, 1.0, 0.5])
    # Class 0: (3 * 1 + 4) / 4, class 1: 25.
    for goals in (target, F.one_hot(target, 3).float()):
        loss = pull_loss(feature, goals, torch.zeros(3, 1), weight=weight, class_balanced=True)
        assert loss.item() == pytest.approx((7 / 4 + 25) / 2)


@pytest.mark.parametrize('shape', [(2, 4), (2, 5, 4), (2, 1, 4, 5)])
def test_pull_loss__names_weights_that_do_not_match(shape):
    with pytest.raises(ValueError, match=r'weights of shape \(2, 4, 5\)'):
        pull_loss(torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5).long(), torch.zeros(2, 3), weight=torch.ones(shape))


def test_pull_loss__does_not_hide_nan():
    feature = torch.zeros(2, 3)
    feature[0, 0] = float('nan')
    assert pull_loss(feature, torch.tensor([255, 1]), torch.zeros(2, 3), 255).isnan()


@pytest.mark.parametrize('shape', [(0, 3), (0, 3, 4), (0, 3, 4, 5), (2, 3, 4, 0), (2, 3, 0, 5)])
@pytest.mark.parametrize('class_balanced', [False, True])
def test_pull_loss__of_nothing_is_zero(shape, class_balanced):
    for layout in (torch.zeros(shape), torch.zeros(shape).movedim(1, -1).contiguous().movedim(-1, 1)):
        feature = layout.requires_grad_()
        target = torch.zeros(shape[:1] + shape[2:]).long()
        loss = pull_loss(feature, target, torch.zeros(2, 3), class_balanced=class_balanced)
        loss.backward()
        assert loss.item() == 0 and feature.grad.shape == shape


@pytest.mark.parametrize('shape', [(), (1,), (3,), (2, 1)])
def test_pull_loss__names_a_gate_that_does_not_match(shape):
    with pytest.raises(ValueError, match=r'gate of shape \(2,\)'):
        pull_loss(torch.zeros(4, 3), torch.zeros(4).long(), torch.zeros(2, 3), gate=torch.ones(shape))
