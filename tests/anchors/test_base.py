import numpy as np
import pytest
import torch

from sar_mm.anchors import PredefinedAnchors


def made(value):
    class OwnAnchors(PredefinedAnchors):
        def generate(self, num_classes, dim, generator):
            return value

    return OwnAnchors()(4, 6)


@pytest.mark.parametrize(
    ('value', 'error', 'match'),
    [
        (
            np.zeros((4, 6)),
            TypeError,
            r'OwnAnchors\.generate\(\) to return a floating-point tensor \(4, D\), but got nd',
        ),
        (torch.zeros(4, 6, dtype=torch.long), TypeError, r'floating-point tensor \(4, D\), but got torch\.int64'),
        (torch.zeros(5, 6), ValueError, r'OwnAnchors\.generate\(\) .*\(4, D\), but got \(5, 6\)'),
        (torch.zeros(4), ValueError, r'\(4, D\), but got \(4,\)'),
        (torch.zeros(4, 0), ValueError, r'\(4, D\), but got \(4, 0\)'),
        (torch.zeros(4, 6, 1), ValueError, r'\(4, D\), but got \(4, 6, 1\)'),
        (torch.full((4, 6), torch.nan), ValueError, 'finite numbers'),
        (torch.full((4, 6), torch.inf), ValueError, 'finite numbers'),
    ],
)
def test_anchors__of_ones_own_are_checked(value, error, match):
    with pytest.raises(error, match=match):
        made(value)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float32])
def test_anchors__of_ones_own_become_plain_float32(dtype):
    anchors = made(torch.ones(4, 9, dtype=dtype, requires_grad=True))
    assert torch.equal(anchors, torch.ones(4, 9)) and anchors.dtype == torch.float32 and not anchors.requires_grad
