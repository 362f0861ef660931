import math

import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.anchors import GaussianAnchors, SeparatedAnchors, SimplexETFAnchors


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
        quiet = SeparatedAnchors(steps=10)(6, 3)
    assert not quiet.requires_grad
    assert torch.equal(quiet, SeparatedAnchors(steps=10)(6, 3))


def test_separated__has_two_directions_in_one_dimension():
    anchors = SeparatedAnchors(seed=0)(5, 1)
    assert anchors.shape == (5, 1)
    assert torch.allclose(anchors.abs(), torch.ones(5, 1))


@pytest.mark.parametrize('steps', [-1, 1.5])
def test_separated__names_wrong_steps(steps):
    with pytest.raises(ValueError, match=f'`steps`.*but got {steps}'):
        SeparatedAnchors(steps=steps)
