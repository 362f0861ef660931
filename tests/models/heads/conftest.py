"""Lets the tests here import the helpers next to them; a head with its features, and gates that are open."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def fcn():
    """FCNHead, its options and its features."""
    heads = pytest.importorskip('mmseg.models.decode_heads')
    options = dict(in_channels=8, channels=16, num_classes=5, num_convs=1, concat_input=False)
    feats = (torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)),)
    return heads.FCNHead, options, feats


@pytest.fixture
def open_all(monkeypatch):
    """Open every gate."""
    monkeypatch.setattr(
        'sar_mm.models.anchor_head.anchor_scores',
        lambda logits, first: (logits.diagonal(first) < torch.inf, logits.new_ones(len(logits))),
    )
