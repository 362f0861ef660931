"""tools/benchmarks/peers.py: the losses that are compared, and the tables."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from sar_mm.baselines.supervised_contrastive import supervised_contrastive_loss
from sar_mm.ops import pull_loss

IGNORED = 255


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(2, 6, 4, 4, generator=generator)
    target = torch.randint(5, (2, 4, 4), generator=generator)
    target[0, :2] = IGNORED
    return feature, target


def rows_of(feature, target):
    valid = target != IGNORED
    return feature.movedim(1, -1)[valid], target[valid]


@pytest.mark.parametrize('ignored', [IGNORED, None])
def test_published_loss__is_the_pull(scripts, pixels, ignored):
    feature, target = pixels
    if ignored is None:
        target = target.clamp(max=4)
    anchors = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    options = dict(target=target, ignore_index=ignored, gate=None, weight=None)
    found = scripts.peers.PublishedSARLoss().pull(feature=feature, semantic_anchors=anchors, **options)
    torch.testing.assert_close(found, pull_loss(feature, target, anchors, ignored))


def test_published_loss__of_a_class_with_the_number_of_the_ignored_label(scripts):
    feature, anchors = torch.randn(3, 4), torch.randn(300, 4)
    target = torch.tensor([255, 1, 255])
    options = dict(target=target, ignore_index=None, gate=None, weight=None)
    found = scripts.peers.PublishedSARLoss().pull(feature=feature, semantic_anchors=anchors, **options)
    torch.testing.assert_close(found, (feature - anchors[target]).square().mean())


def test_all_pairs_center_loss__is_the_mean_distance_to_the_own_center(scripts, pixels):
    head = scripts.peers.AllPairsCenterHead(5, 6)
    rows, labels = rows_of(*pixels)
    loss = head.loss(*pixels, classify=None)['loss_peer']
    torch.testing.assert_close(loss, (rows - head.centers[labels]).square().sum(dim=1).mean())
    loss.backward()
    assert head.centers.grad.abs().sum() > 0


def test_proxy_anchor_head__gives_the_library_the_valid_pixels(scripts, pixels, monkeypatch):
    class ProxyAnchorLoss(nn.Module):
        def __init__(self, num_classes, embedding_size):
            super().__init__()
            assert (num_classes, embedding_size) == (5, 6)

        def forward(self, embeddings, labels):
            self.given = embeddings, labels
            return embeddings.sum()

    library = ModuleType('pytorch_metric_learning.losses')
    library.ProxyAnchorLoss = ProxyAnchorLoss
    monkeypatch.setitem(sys.modules, 'pytorch_metric_learning', ModuleType('pytorch_metric_learning'))
    monkeypatch.setitem(sys.modules, library.__name__, library)
    head = scripts.peers.ProxyAnchorHead(5, 6)
    head.loss(*pixels, classify=None)
    assert all(torch.equal(*each) for each in zip(head.of_library.given, rows_of(*pixels)))


def test_proxy_anchor_head__of_the_library(scripts, pixels):
    pytest.importorskip('pytorch_metric_learning')
    loss = scripts.peers.ProxyAnchorHead(5, 6).loss(*pixels, classify=None)['loss_peer']
    assert loss.isfinite() and loss > 0


def test_sampled_contrastive_head__takes_valid_pixels_only(scripts, pixels, monkeypatch):
    head = scripts.peers.SampledContrastiveHead(5, 6, sample=20)
    given = []
    parent = type(head).__mro__[1]
    monkeypatch.setattr(parent, 'step', lambda self, *args: given.append(args) or dict(loss_contrast=0))
    head.loss(*pixels, classify=None)
    rows, labels = given[0][:2]
    assert rows.shape == (20, 6) and (labels != IGNORED).all()
    known = rows_of(*pixels)[0]
    places = (rows[:, None] == known).all(dim=2).nonzero()[:, 1]
    assert len(set(places.tolist())) == 20  # each once
    assert torch.equal(labels, rows_of(*pixels)[1][places])


def test_sampled_contrastive_head__takes_all_images(scripts):
    head = scripts.peers.SampledContrastiveHead(3, 6, sample=20, dim=4, temperature=0.1)
    feature, target = torch.randn(8, 6), torch.arange(8) % 3
    embedding = nn.functional.normalize(head.projection(feature), dim=1)
    found = head.loss(feature, target, classify=None)['loss_contrast']
    torch.testing.assert_close(found, supervised_contrastive_loss(embedding, target, 0.1))


@pytest.mark.parametrize('has_library', [False, True])
def test_peers__table(has_library, scripts, monkeypatch):
    monkeypatch.setattr(scripts.peers, 'find_spec', lambda name: has_library)
    names = list(scripts.peers.methods(1024))
    assert names[:3] == ['stock', 'SAR', 'SAR, published'] and 'contrastive, 1024 pixels' in names
    assert ('proxy anchor' in names) == has_library
    numbers = dict.fromkeys(names, 2.0)
    row = dict(model='m', batch_size=2, size=[64, 32], num_classes=5, channels=6)
    row.update(dict.fromkeys(('ms', 'time_ratio', 'memory_mib', 'memory_ratio'), numbers))
    text = scripts.peers.render([dict(row, host_waits_added=dict.fromkeys(names, 0))])
    assert text.startswith('m, batch 2, 64x32, 5 classes, 6 channels:\n\n| method | ms | time / stock | ')
    assert '\n| SAR | 2.0 | 2.000 | 2 | 2.000 | 0 |\n' in text
    assert text.endswith('ProxyAnchorLoss is left out: pytorch-metric-learning is not installed.') == (not has_library)


@pytest.mark.slow
@pytest.mark.parametrize('name, toolbox', [('segformer-b0', 'mmseg.models'), ('resnet8', 'mmpretrain.models')])
def test_peers__trains_every_method(name, toolbox, scripts, monkeypatch):
    pytest.importorskip(toolbox)
    monkeypatch.setenv('SAR_MM_PULL', 'auto')
    arguments = ['--models', name, '--size', '64', '64', '--batch-size', '2', '--rounds', '1', '--sample', '100']
    args = scripts.peers.parse_arguments([*arguments, '--device', 'cpu'])
    row = scripts.peers.measure(name, args)
    methods = set(scripts.peers.methods(100))
    for part in ('ms', 'time_ratio', 'memory_mib', 'memory_ratio', 'host_waits_added'):
        assert set(row[part]) == methods
    assert row['host_waits_added']['SAR'] == 0
    assert row['memory_ratio']['stock'] == row['time_ratio']['stock'] == 1
    assert row['memory_ratio']['SAR'] > 1
