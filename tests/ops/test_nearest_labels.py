import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.ops import nearest_labels


# Sizes whose quotient is exact or never lands on an integer: the kernel divides in float32.
@pytest.mark.parametrize(
    ('old', 'new'),
    [((8, 8), (4, 2)), ((16, 32), (16, 32)), ((3, 5), (7, 11)), ((13, 7), (4, 5)), ((4, 4), (8, 16)), ((9, 1), (1, 9))],
)
@pytest.mark.parametrize('dtype', [torch.int64, torch.uint8, torch.int32])
def test_nearest_labels__equals_loops(old, new, dtype):
    labels = torch.randint(256, (2,) + old, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = nearest_labels(labels, new)
    assert found.dtype == dtype and found.shape == (2,) + new
    for n in range(2):
        for i in range(new[0]):
            for j in range(new[1]):
                assert found[n, i, j] == labels[n, i * old[0] // new[0], j * old[1] // new[1]]


@pytest.mark.parametrize('dtype', [torch.int64, torch.uint8])
def test_nearest_labels__keeps_every_label(dtype):
    labels = torch.arange(256).reshape(1, 16, 16).to(dtype)
    assert torch.equal(nearest_labels(labels, (16, 16)), labels)
    assert torch.equal(nearest_labels(labels, (32, 32))[:, ::2, 1::2], labels)


def test_nearest_labels__keeps_negative_and_large_labels():
    labels = torch.tensor([[[-1, -100], [65535, 2**24 - 1]]])
    assert torch.equal(nearest_labels(labels, (2, 4)), labels.repeat_interleave(2, dim=2))


@pytest.mark.parametrize('old', [1, 5, 19, 33, 64, 100, 513])
def test_nearest_labels__equals_interpolate(old):
    labels = torch.arange(old * old).reshape(1, old, old)
    for new in (1, 2, 7, 16, 31, 65, 128, 200):
        expected = torch.nn.functional.interpolate(labels[None].double(), size=(new, new + 1), mode='nearest')[0]
        assert torch.equal(nearest_labels(labels, (new, new + 1)), expected.long()), new
