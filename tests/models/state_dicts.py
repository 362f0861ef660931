"""Comparisons of dicts of tensors."""

import torch


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def is_part(one, other):
    """Whether the other has all that the one has, bit for bit."""
    return all(torch.equal(value, other[name]) for name, value in one.items())


def largest_difference(one, other):
    assert list(one) == list(other)
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def mean_of(parts):
    return {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
