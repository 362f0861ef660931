import pytest
import torch


@pytest.fixture
def fcn():
    """FCNHead, its options and its features."""
    heads = pytest.importorskip('mmseg.models.decode_heads')
    options = dict(in_channels=8, channels=16, num_classes=5, num_convs=1, concat_input=False)
    feats = (torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)),)
    return heads.FCNHead, options, feats
