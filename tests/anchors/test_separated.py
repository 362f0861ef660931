import math

import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.anchors import GaussianAnchors, SeparatedAnchors, SimplexETFAnchors, separated
from sar_mm.anchors.unbiased_bases import unbiased_bases


def largest_cosine(anchors):
    rows = anchors.double().tolist()
    norms = [math.sqrt(sum(a * a for a in row)) for row in rows]
    return max(
        sum(a * b for a, b in zip(rows[i], rows[j])) / (norms[i] * norms[j]) for i in range(len(rows)) for j in range(i)
    )


@pytest.mark.parametrize(('num_classes', 'dim'), [(2, 1), (4, 3), (4, 8), (9, 8)])
def test_separated__is_a_simplex_where_one_fits(num_classes, dim):
    anchors = SeparatedAnchors(seed=3)(num_classes, dim)
    cosine = anchors @ anchors.t()
    expected = torch.full_like(cosine, -1 / (num_classes - 1)).fill_diagonal_(1)
    assert torch.allclose(cosine, expected, atol=1e-6)
    assert torch.equal(anchors, SimplexETFAnchors(seed=3)(num_classes, dim))


@pytest.mark.parametrize(('num_classes', 'dim'), [(4, 2), (5, 3), (10, 7), (16, 8), (21, 16)])
@pytest.mark.parametrize('seed', [0, 5])
def test_separated__attains_rankins_bound_up_to_twice_the_dimension(num_classes, dim, seed):
    """From D + 2 to 2 D unit vectors, the largest cosine is at least 0."""
    anchors = SeparatedAnchors(seed=seed)(num_classes, dim).double()
    torch.testing.assert_close(anchors.norm(dim=1), torch.ones(num_classes, dtype=torch.float64), rtol=0, atol=1e-6)
    assert largest_cosine(anchors) == pytest.approx(0, abs=1e-6)
    assert anchors.sum(dim=0).abs().max() < 1e-5
    assert not torch.allclose(anchors, SeparatedAnchors(seed=seed + 1)(num_classes, dim).double(), atol=0.01)


@pytest.mark.parametrize('block', [7, 20, 10**6])
@pytest.mark.parametrize('sharpness', [10.0, 200.0])
def test_gradient__equals_that_of_autograd(block, sharpness, monkeypatch):
    monkeypatch.setattr(separated, 'BLOCK', block)
    points = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    unit = torch.nn.functional.normalize(points)
    cosine = (unit @ unit.t())[~torch.eye(7, dtype=torch.bool)]
    (torch.logsumexp(sharpness * cosine, dim=0) / sharpness).backward()
    torch.testing.assert_close(separated.gradient(points.detach(), sharpness), points.grad)


def test_separated__takes_the_bases_where_steps_do_not_come_near(monkeypatch):
    bases = unbiased_bases(500, 34, torch.Generator().manual_seed(0))
    limit = 1 / math.sqrt(17) + 1e-6
    assert largest_cosine(bases) <= limit
    optimized = SeparatedAnchors(steps=60)(500, 34)
    monkeypatch.setattr(separated, 'BUDGET', 500 * 500 * 34 * 49)
    assert largest_cosine(SeparatedAnchors(steps=60)(500, 34)) <= limit
    assert largest_cosine(optimized) <= limit


def test_separated__takes_fewer_steps_where_they_cost_much(monkeypatch):
    monkeypatch.setattr(separated, 'BUDGET', 8 * 8 * 3 * 40)
    assert torch.equal(SeparatedAnchors(steps=500)(8, 3), SeparatedAnchors(steps=40)(8, 3))


# The best known arrangements: a regular polygon on the circle, and N. Sloane's table of spherical codes on the sphere.
@pytest.mark.parametrize(
    ('num_classes', 'dim', 'degrees'), [(5, 2, 72.0), (6, 3, 90.0), (12, 3, 63.4349), (20, 3, 47.4310)]
)
def test_separated__comes_near_the_known_optimum(num_classes, dim, degrees):
    anchors = SeparatedAnchors()(num_classes, dim)
    assert torch.allclose(anchors.norm(dim=1), torch.ones(num_classes), atol=1e-6)
    cosine = largest_cosine(anchors)
    assert degrees - 0.5 < math.degrees(math.acos(cosine)) < degrees + 1e-3
    assert cosine < largest_cosine(GaussianAnchors()(num_classes, dim)) - 0.08


def test_separated__improves_with_its_steps():
    start, middle = (SeparatedAnchors(steps=steps)(8, 3) for steps in (0, 40))
    assert torch.allclose(start.norm(dim=1), torch.ones(8), atol=1e-6)
    assert largest_cosine(middle) < largest_cosine(start) - 0.1


def test_separated__is_built_without_gradients_enabled():
    with torch.no_grad():
        quiet = SeparatedAnchors(steps=10)(7, 3)
    assert not quiet.requires_grad
    assert torch.equal(quiet, SeparatedAnchors(steps=10)(7, 3))


def test_separated__has_two_directions_in_one_dimension():
    anchors = SeparatedAnchors(seed=0)(5, 1)
    assert anchors.shape == (5, 1)
    assert torch.allclose(anchors.abs(), torch.ones(5, 1))


@pytest.mark.parametrize('steps', [-1, 1.5])
def test_separated__names_wrong_steps(steps):
    with pytest.raises(ValueError, match=f'`steps`.*but got {steps}'):
        SeparatedAnchors(steps=steps)
