from itertools import combinations, product

import pytest
import torch
import torch.nn.functional as F

import sar_mm  # noqa: F401
from sar_mm.ops import pull as pull_module
from sar_mm.ops import pull_blocked, pull_loss, pull_triton


def pairwise(*factors):
    """The full product as parameters; all rows but a few that show every pair of values together are slow."""
    rows = {row: set(combinations(enumerate(row), 2)) for row in product(*factors)}
    missing, chosen = set().union(*rows.values()), set()
    while missing:
        best = max(rows, key=lambda row: len(rows[row] & missing))
        chosen.add(best)
        missing -= rows[best]
    return [pytest.param(*row, marks=[] if row in chosen else pytest.mark.slow) for row in rows]


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


CASES = ['hard', 'ignored', 'all_ignored', 'class_absent', 'one_position', 'soft', 'weighted', 'soft_weighted', 'gated']
LAYOUTS = ['rows', 'strided_rows', 'points', 'maps', 'channels_last', 'permuted']
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def make_case(case, layout, dtype, num_classes=5, channels=6, seed=0, places=None):
    """Features, and what pull_loss() takes besides."""
    generator = torch.Generator().manual_seed(seed)
    places = places or {'rows': (23,), 'strided_rows': (23,), 'points': (3, 7)}.get(layout, (2, 5, 9))
    if case == 'one_position':
        places = (1,) * len(places)
    shape = (places[0], channels, *places[1:])
    feature = torch.randn(shape, generator=generator).to(dtype)
    if layout == 'strided_rows':
        feature = feature.repeat_interleave(3, dim=0).repeat_interleave(2, dim=1)[::3, ::2]
    elif layout == 'channels_last':
        feature = feature.to(memory_format=torch.channels_last)
    elif layout == 'permuted':
        feature = feature.permute(2, 1, 3, 0).contiguous().permute(3, 1, 0, 2)
    anchors = torch.randn(num_classes, channels, generator=generator).double()
    target = torch.randint(num_classes, places, generator=generator)
    target[torch.rand(places, generator=generator) < dict(ignored=0.4, all_ignored=2).get(case, -1)] = 255
    if case == 'class_absent':
        target[target == 2] = 3
    options = dict(ignore_index=255)
    if 'soft' in case:
        target = torch.rand((places[0], num_classes, *places[1:]), generator=generator, dtype=torch.float64)
        target = target / target.sum(dim=1, keepdim=True)
    if 'weighted' in case:
        options.update(weight=torch.rand(places, generator=generator).double())
    if case == 'gated':
        options.update(gate=torch.tensor([1, 0, 1, 0, 1]).double())
    return feature, target, anchors, options


def naive(feature, target, anchors, ignore_index=None, gate=None, weight=None):
    """The formula, position by position, in float64 and by torch's autograd."""
    feature = feature.double()
    rows = feature.movedim(1, -1).reshape(-1, feature.shape[1])
    goals = target.movedim(1, -1).reshape(len(rows), -1) if target.is_floating_point() else target.flatten()
    weights = torch.ones(len(rows)) if weight is None else weight.flatten()
    total, count = feature.sum() * 0, 0.0
    for row, goal, mass in zip(rows, goals, weights.tolist()):
        if goal.dim() == 0:
            if not 0 <= goal < len(anchors) or goal == ignore_index:
                continue
            centre, is_open = anchors[goal], gate is None or bool(gate[goal])
        else:
            centre, is_open = goal @ anchors, True
        total = total + is_open * mass * ((row - centre) ** 2).mean()
        count += mass
    return total / count if count else total


# Blocks larger than the features, and of 12 numbers, which cut across everything.
@pytest.mark.parametrize(
    ('case', 'layout', 'dtype', 'block_size'), pairwise(CASES, LAYOUTS, TOLERANCES, [2**18, 12]), ids=str
)
def test_pull_loss__equals_the_naive_formula(case, layout, dtype, block_size, monkeypatch):
    monkeypatch.setattr(pull_blocked, '_block_size', lambda feature: block_size)
    feature, target, anchors, options = make_case(case, layout, dtype)
    feature.requires_grad_()
    expected = naive(feature, target, anchors, **options)
    (expected_gradient,) = torch.autograd.grad(expected, feature)
    loss = pull_loss(feature, target, anchors, **options)
    (gradient,) = torch.autograd.grad(loss, feature)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12 if dtype == torch.float64 else 1e-5)
    assert gradient.dtype == dtype and gradient.shape == feature.shape
    torch.testing.assert_close(gradient, expected_gradient, atol=TOLERANCES[dtype] / 100, rtol=TOLERANCES[dtype])


@pytest.mark.parametrize(
    ('case', 'layout', 'places'),
    [
        ('ignored', 'maps', (2, 3, 2)),
        ('weighted', 'channels_last', (2, 3, 2)),
        ('soft', 'rows', (7,)),
        ('gated', 'points', (2, 4)),
        ('all_ignored', 'rows', (7,)),
        ('soft_weighted', 'maps', (2, 3, 2)),
    ],
)
def test_pull_loss__gradcheck(case, layout, places):
    feature, target, anchors, options = make_case(case, layout, torch.float64, channels=3, places=places)
    feature.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: pull_loss(f, target, anchors, **options), feature)
    assert torch.autograd.gradgradcheck(lambda f: pull_loss(f, target, anchors, **options), feature)


def with_task(feature, target, anchors, **options):
    """A task loss and a pull of one feature, and the pull."""
    pull = pull_loss(feature, target, anchors, **options)
    return feature.sin().sum() + pull, pull


@pytest.mark.parametrize(
    ('case', 'layout', 'dtype'), pairwise(['ignored', 'soft_weighted', 'all_ignored'], LAYOUTS, TOLERANCES), ids=str
)
def test_pull_loss__gradient_of_second_order(case, layout, dtype):
    feature, target, anchors, options = make_case(case, layout, dtype)
    feature.requires_grad_()
    found = []
    for function in (naive, pull_loss):
        (gradient,) = torch.autograd.grad(function(feature, target, anchors, **options), feature, create_graph=True)
        (second,) = torch.autograd.grad((gradient.double() * feature.double().cos()).sum(), feature)
        found.append((gradient.detach(), second))
    for expected, value in zip(*found):
        assert value.dtype == dtype
        torch.testing.assert_close(value, expected, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_pull_loss__has_a_gradient_of_its_own_in_any_order_and_often(order):
    feature, target, anchors, options = make_case('ignored', 'maps', torch.float32)
    feature.requires_grad_()
    hidden = 2 * feature
    losses = [hidden.sin().sum(), pull_loss(hidden, target, anchors, **options)]
    expected = [hidden.detach().cos(), torch.autograd.grad(naive(hidden, target, anchors, **options), hidden)[0]]
    for index in order * 2:
        for leaf, factor in ((hidden, 1), (feature, 2)):
            (gradient,) = torch.autograd.grad(losses[index], leaf, retain_graph=True)
            torch.testing.assert_close(gradient, factor * expected[index])
    (gradient,) = torch.autograd.grad(sum(losses), feature)
    torch.testing.assert_close(gradient, 2 * sum(expected))


# ----- The path that is taken


@pytest.mark.parametrize('case', CASES)
def test_pull_loss__by_the_plain_formula(case, monkeypatch):
    feature, target, anchors, options = make_case(case, 'maps', torch.float32)
    feature.requires_grad_()
    expected = pull_loss(feature, target, anchors, **options)
    monkeypatch.setenv('SAR_MM_PULL', 'plain')
    monkeypatch.setattr(pull_module, '_Pull', None)
    found = pull_loss(feature, target, anchors, **options)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, feature)[0] for loss in (found, expected)))


def test_pull_loss__names_an_unknown_path(monkeypatch):
    monkeypatch.setenv('SAR_MM_PULL', 'triton')
    with pytest.raises(ValueError, match=r"`SAR_MM_PULL`.*'auto', 'blocked', 'plain'.*'triton'"):
        pull_loss(torch.zeros(2, 3), torch.zeros(2).long(), torch.zeros(2, 3))


@pytest.fixture
def failing_kernels(monkeypatch):
    """Kernels that fail, and how often they were tried."""
    tried = []

    def fail(*args):
        tried.append(args)
        raise RuntimeError('ptxas is not there')

    for name in ('pull_value', 'pull_gradient'):
        monkeypatch.setattr(pull_triton, name, fail)
    monkeypatch.setattr(pull_triton, 'takes', lambda feature, target: True)
    monkeypatch.setattr(pull_module, '_failed_kernels', [])
    return tried


def test_pull_loss__goes_on_where_a_kernel_fails(failing_kernels, monkeypatch):
    feature, target, anchors, options = make_case('ignored', 'maps', torch.float32)
    feature.requires_grad_()
    expected = naive(feature, target, anchors, **options)
    with pytest.warns(UserWarning, match='ptxas is not there.*SAR_MM_PULL=blocked') as caught:
        losses = [pull_loss(feature, target, anchors, **options) for _ in range(3)]
        gradients = [torch.autograd.grad(loss, feature)[0] for loss in losses]
    assert len(caught) == 1 and len(failing_kernels) == 1
    torch.testing.assert_close(losses[0].double(), expected.double())
    torch.testing.assert_close(gradients[0], torch.autograd.grad(expected, feature)[0])


def test_pull_loss__does_not_try_kernels_that_are_switched_off(failing_kernels, monkeypatch):
    monkeypatch.setenv('SAR_MM_PULL', 'blocked')
    feature, target, anchors, options = make_case('ignored', 'maps', torch.float32)
    pull_loss(feature.requires_grad_(), target, anchors, **options).backward()
    assert not failing_kernels


def test_pull_loss__of_a_gpu_without_memory_is_an_error(failing_kernels, monkeypatch):
    def fail(*args):
        raise torch.cuda.OutOfMemoryError('out of memory')

    monkeypatch.setattr(pull_triton, 'pull_value', fail)
    feature, target, anchors, options = make_case('ignored', 'maps', torch.float32)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        pull_loss(feature, target, anchors, **options)


@pytest.mark.parametrize('layout', ['rows', 'maps', 'channels_last'])
def test_pull_loss__is_deterministic(layout):
    feature, target, anchors, options = make_case('ignored', layout, torch.float32)
    feature.requires_grad_()
    first, second = (pull_loss(feature, target, anchors, **options) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(*(torch.autograd.grad(loss, feature)[0] for loss in (first, second)))


@pytest.mark.parametrize('layout', ['maps', 'channels_last'])
def test_pull_loss__keeps_the_layout(layout):
    feature, target, anchors, options = make_case('hard', layout, torch.float32)
    pull_loss(feature.requires_grad_(), target, anchors, **options).backward()
    assert feature.grad.stride() == feature.stride()


@pytest.mark.parametrize('case', ['hard', 'soft'])
def test_pull_loss__is_not_lowered_by_autocast(case):
    feature, target, anchors, options = make_case(case, 'maps', torch.float32)
    expected = pull_loss(feature, target, anchors, **options)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = with_task(feature.requires_grad_(), target, anchors, **options)[1]
        found.backward()
    assert torch.equal(found, expected)


def test_pull_loss__weight_of_zero_is_like_not_valid():
    feature, target, anchors, _ = make_case('hard', 'maps', torch.float32)
    mask = (torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    weighted = pull_loss(feature, target, anchors, weight=mask)
    torch.testing.assert_close(weighted, pull_loss(feature, target.where(mask > 0, torch.tensor(-1)), anchors))
    torch.testing.assert_close(weighted, pull_loss(feature, target, anchors, weight=0.01 * mask))
    for balanced in (False, True):
        assert pull_loss(feature, target, anchors, weight=0 * mask, class_balanced=balanced).item() == 0


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


@pytest.mark.parametrize(('case', 'layout'), [('ignored', 'channels_last'), ('soft_weighted', 'rows')])
def test_pull_loss__compiles_in_one_piece(case, layout):
    pytest.importorskip('torch._dynamo')
    feature, target, anchors, options = make_case(case, layout, torch.float32)
    feature.requires_grad_()
    expected, _ = with_task(feature, target, anchors, **options)
    found, _ = torch.compile(with_task, backend='aot_eager', fullgraph=True)(feature, target, anchors, **options)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, feature)[0] for loss in (found, expected)))
