import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.anchors import EquiangularAnchors, SimplexETFAnchors
from sar_mm.registry import ANCHORS


@pytest.mark.parametrize(
    ('num_classes', 'dim', 'cosine'),
    [
        (2, 2, -0.9),
        (2, 1, -1),
        (5, 5, 0.0),
        (5, 8, -0.2),
        (5, 4, -0.25),
        (10, 64, 0.5),
        (10, 9, -1 / 9),
        (19, 64, 0.99),
        (150, 512, 0.3),
    ],
)
@pytest.mark.parametrize('seed', [0, 7])
def test_equiangular__pairs_have_the_cosine(num_classes, dim, cosine, seed):
    anchors = ANCHORS.build(dict(type='EquiangularAnchors', seed=seed, cosine=cosine))(num_classes, dim)
    assert anchors.shape == (num_classes, dim) and anchors.dtype == torch.float32
    expected = torch.full((num_classes, num_classes), cosine, dtype=torch.float64).fill_diagonal_(1)
    rows = anchors.double()
    torch.testing.assert_close(rows @ rows.t(), expected, atol=1e-6, rtol=0)


def test_equiangular__smallest_cosine_is_a_simplex():
    assert torch.equal(EquiangularAnchors(seed=3, cosine=-0.25)(5, 8), SimplexETFAnchors(seed=3)(5, 8))


def test_equiangular__seed_and_dim():
    one, same, other = (EquiangularAnchors(dim=16, seed=seed, cosine=0.2)(4, 64) for seed in (1, 1, 2))
    assert one.shape == (4, 16) and torch.equal(one, same) and not torch.allclose(one, other, atol=0.1)


@pytest.mark.parametrize(
    ('num_classes', 'dim', 'cosine', 'needed'), [(5, 4, 0.0, 5), (5, 4, -0.24, 5), (5, 3, -0.25, 4), (20, 19, 0.9, 20)]
)
def test_equiangular__refuses_too_many_classes(num_classes, dim, cosine, needed):
    with pytest.raises(ValueError, match=rf'`dim`.*at least {needed} for {num_classes} classes.*but got {dim}'):
        EquiangularAnchors(dim=dim, cosine=cosine)(num_classes, 64)


@pytest.mark.parametrize('cosine', [1, 1.5, -1.01, float('nan'), '0.5', None])
def test_equiangular__names_a_wrong_cosine(cosine):
    with pytest.raises(ValueError, match='`cosine`.*but got'):
        EquiangularAnchors(cosine=cosine)


def test_equiangular__names_a_cosine_too_small_for_the_classes():
    with pytest.raises(ValueError, match=r'`cosine`.*\[-0.25, 1\) for 5 classes, but got -0.26'):
        EquiangularAnchors(cosine=-0.26)(5, 64)
