import cmath
import math

import pytest
import torch

from sar_mm.anchors.unbiased_bases import largest_odd_prime, unbiased_bases


def vectors_by_loops(prime):
    """The vectors of p + 1 mutually unbiased bases of complex p-space, one after the other."""
    unit = [[1.0 * (row == column) for column in range(prime)] for row in range(prime)]
    root = cmath.exp(2j * math.pi / prime)
    quadratic = [
        [root ** (a * j * j + b * j) / math.sqrt(prime) for j in range(prime)]
        for a in range(prime)
        for b in range(prime)
    ]
    return unit + quadratic


@pytest.mark.parametrize(('prime', 'dim'), [(3, 6), (5, 12)])
def test_unbiased_bases__have_the_cosines_of_the_definition(prime, dim):
    expected = []
    for vector in vectors_by_loops(prime):
        for factor in (1, -1, 1j, -1j):
            turned = [factor * entry for entry in vector]
            expected.append([part for entry in turned for part in (entry.real, entry.imag)])
    expected = torch.tensor(expected, dtype=torch.float64)
    found = unbiased_bases(len(expected), dim, torch.Generator().manual_seed(0))
    assert found.shape == (4 * prime * (prime + 1), dim) and found.dtype == torch.float64
    torch.testing.assert_close(found @ found.t(), expected @ expected.t())
    largest = (found @ found.t()).fill_diagonal_(-1).max().item()
    assert largest == pytest.approx(1 / math.sqrt(prime), abs=0.06) and largest <= 1 / math.sqrt(prime) + 1e-12


def test_unbiased_bases__of_whole_bases_have_a_mean_of_zero_and_a_seed():
    first, again, other = (unbiased_bases(44, 22, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.sum(dim=0).abs().max() < 1e-12
    assert torch.equal(first, again) and not torch.allclose(first, other)


@pytest.mark.parametrize(('num_vectors', 'dim'), [(49, 6), (10, 5), (3, 1)])
def test_unbiased_bases__are_none_where_the_dimension_has_too_few(num_vectors, dim):
    assert unbiased_bases(num_vectors, dim, torch.Generator()) is None


def test_largest_odd_prime__by_hand():
    assert [largest_odd_prime(bound) for bound in (2, 3, 4, 10, 384, 1024)] == [None, 3, 3, 7, 383, 1021]
