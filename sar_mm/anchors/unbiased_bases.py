import math
from typing import Optional

import torch
from torch import Tensor

from .base import random_orthonormal


def unbiased_bases(num_vectors: int, dim: int, generator: torch.Generator) -> Optional[Tensor]:
    """Return unit vectors of mutually unbiased bases, randomly rotated, (N, D) float64; None where D has too few.

    With the largest odd prime p <= D / 2, the p + 1 mutually unbiased bases of complex p-space have inner products of
    absolute value 1 / sqrt(p) (Wootters and Fields, "Optimal state-determination by mutually unbiased measurements",
    1989). Each of their vectors v gives the directions v, -v, iv and -iv of real 2p-space: 4 p (p + 1) vectors with a
    largest cosine of at most 1 / sqrt(p).

    Args:
        num_vectors: N.
        dim: D.
        generator: Of the rotation.
    """
    prime = largest_odd_prime(dim // 2)
    if prime is None or num_vectors > 4 * prime * (prime + 1):
        return None
    index = torch.arange(prime, dtype=torch.int64, device='cpu')
    found = []
    for number in range(-(-num_vectors // (4 * prime))):
        if number == 0:
            basis = torch.eye(prime, dtype=torch.complex128, device='cpu')
        else:
            phase = ((number - 1) * index**2 + index[:, None] * index) % prime
            basis = torch.polar(torch.ones_like(phase, dtype=torch.float64), 2 * math.pi / prime * phase.double())
            basis = basis / math.sqrt(prime)
        # Opposite directions follow each other: a part of a basis has a mean near zero, too.
        directions = torch.stack([basis, -basis, 1j * basis, -1j * basis], dim=1).flatten(0, 1)
        found.append(torch.view_as_real(directions).flatten(1))
    return torch.cat(found)[:num_vectors] @ random_orthonormal(2 * prime, dim, generator)


def largest_odd_prime(bound: int) -> Optional[int]:
    """Return the largest odd prime up to ``bound``; None where there is none."""
    for number in range(bound, 2, -1):
        if all(number % divisor for divisor in range(2, math.isqrt(number) + 1)):
            return number
    return None
