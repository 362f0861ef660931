"""The pull in every layout and dtype, its gradients of both orders, and the ways in which it is computed."""

from itertools import combinations, product

import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.ops import pull as pull_module
from sar_mm.ops import pull_blocked, pull_loss, pull_triton

CASES = ['hard', 'ignored', 'all_ignored', 'class_absent', 'one_position', 'soft', 'weighted', 'soft_weighted', 'gated']
LAYOUTS = ['rows', 'strided_rows', 'points', 'maps', 'channels_last', 'permuted']
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def pairwise(*factors):
    """The full product as parameters; all rows but a few that show every pair of values together are slow."""
    rows = {row: set(combinations(enumerate(row), 2)) for row in product(*factors)}
    missing, chosen = set().union(*rows.values()), set()
    while missing:
        best = max(rows, key=lambda row: len(rows[row] & missing))
        chosen.add(best)
        missing -= rows[best]
    return [pytest.param(*row, marks=[] if row in chosen else pytest.mark.slow) for row in rows]


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


@pytest.mark.parametrize(('case', 'layout'), [('ignored', 'channels_last'), ('soft_weighted', 'rows')])
def test_pull_loss__compiles_in_one_piece(case, layout):
    pytest.importorskip('torch._dynamo')
    feature, target, anchors, options = make_case(case, layout, torch.float32)
    feature.requires_grad_()
    expected, _ = with_task(feature, target, anchors, **options)
    found, _ = torch.compile(with_task, backend='aot_eager', fullgraph=True)(feature, target, anchors, **options)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, feature)[0] for loss in (found, expected)))
