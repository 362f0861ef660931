import pytest
import torch
from mmengine.model import initialize
from torch import nn

import sar_mm  # noqa: F401
from sar_mm.models import SemanticAnchorHead
from sar_mm.models.projector import AnchorProjector


def plain_copy(projector, dim, channels, hidden=None):
    """The same layers of torch itself, in train mode."""
    layers = []
    hidden = hidden or channels
    for sizes, bias in (((dim, hidden), True), ((hidden, hidden), True), ((hidden, channels), False)):
        layers += [nn.Linear(*sizes, bias=bias), nn.BatchNorm1d(sizes[1]), nn.ReLU()]
    plain = nn.Sequential(*layers).train()
    missing, unexpected = plain.load_state_dict(projector.state_dict(), strict=False)
    assert not unexpected
    assert all(name.split('.')[1] in ('running_mean', 'running_var', 'num_batches_tracked') for name in missing)
    return plain


def clone_state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_state(module, state):
    assert sorted(module.state_dict()) == sorted(state)
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize(('num_classes', 'dim', 'channels'), [(2, 3, 4), (5, 8, 8), (19, 16, 12)])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('hidden', [None, 6])
def test_projector__equals_linear_batch_norm_relu(num_classes, dim, channels, training, hidden):
    projector = AnchorProjector(dim, channels, seed=2, channels=hidden).train(training)
    with torch.no_grad():  # norm weights that are not ones and zeros
        for name, parameter in projector.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    plain = plain_copy(projector, dim, channels, hidden)
    anchors = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(0))
    slope = torch.randn(num_classes, channels, generator=torch.Generator().manual_seed(1))
    found, expected = projector(anchors), plain(anchors)
    assert found.shape == (num_classes, channels)
    assert torch.allclose(found, expected, atol=1e-6 if num_classes > 2 else 1e-5)
    (found * slope).sum().backward()
    (expected * slope).sum().backward()
    if num_classes > 2:  # two anchors are normalised to plus and minus one: their gradient is rounding
        for mine, theirs in zip(projector.parameters(), plain.parameters()):
            assert torch.allclose(mine.grad, theirs.grad, atol=1e-4, rtol=1e-3)


def test_projector__follows_its_seed_alone():
    torch.manual_seed(1)
    state = clone_state(AnchorProjector(5, 4, seed=3))
    torch.manual_seed(2)
    assert_same_state(AnchorProjector(5, 4, seed=3), state)
    other = AnchorProjector(5, 4, seed=4).state_dict()
    for name in ('0.weight', '0.bias', '3.weight', '3.bias', '6.weight'):
        assert (other[name] - state[name]).abs().max() > 1e-3


def test_projector__starts_as_the_authors_layers():
    projector = AnchorProjector(64, 100, seed=0)
    for index, in_features in ((0, 64), (3, 100)):  # torch's nn.Linear
        for parameter in (projector[index].weight, projector[index].bias):
            assert parameter.abs().max() <= in_features**-0.5
        weight = projector[index].weight
        assert weight.shape == (100, in_features)
        # Uniform over (-b, b): standard deviation b / sqrt(3).
        assert weight.std().item() == pytest.approx((3 * in_features) ** -0.5, rel=0.03)
    weight = projector[6].weight  # mmcv's ConvModule: kaiming_normal_ with fan_out, C for a 1x1 convolution
    assert weight.shape == (100, 100)
    assert weight.std().item() == pytest.approx((2 / 100) ** 0.5, rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=0.005)
    shares = [(weight.abs() < k * (2 / 100) ** 0.5).float().mean().item() for k in (1, 2)]
    assert shares == pytest.approx([0.683, 0.954], abs=0.02)  # as in a normal distribution
    for index in (1, 4, 7):
        assert torch.equal(projector[index].weight, torch.ones(100))
        assert torch.equal(projector[index].bias, torch.zeros(100))
    assert projector[0].bias is not None and projector[3].bias is not None and projector[6].bias is None


def test_projector__leaves_the_global_random_state(monkeypatch):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for name in ('seed', 'manual_seed', 'set_rng_state'):  # nor does it set the state aside: threads share it
        monkeypatch.setattr(torch.random, name, None)
        monkeypatch.setattr(torch, name, None)
    projector = AnchorProjector(5, 4, seed=3)
    projector(torch.zeros(3, 5))
    assert torch.equal(torch.get_rng_state(), state)


def test_projector__is_left_alone_by_sync_batch_norm():
    projector = AnchorProjector(5, 4, seed=3)
    state, types = clone_state(projector), [type(layer) for layer in projector]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(projector)
    assert [type(layer) for layer in converted] == types
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in converted.modules())
    assert_same_state(converted, state)


@pytest.mark.parametrize(
    'init_cfg',
    [
        dict(type='Constant', layer='Linear', val=0),
        dict(type='TruncNormal', layer='Linear'),
        dict(type='Normal', layer=['Conv2d', 'Linear'], std=0.01),
        dict(type='Constant', layer=['BatchNorm1d', '_BatchNorm', 'GroupNorm'], val=3),
    ],
)
def test_projector__is_left_alone_by_init_cfg(init_cfg):
    host = nn.Module()
    host.projector = AnchorProjector(5, 4, seed=3)
    state = clone_state(host)
    torch.manual_seed(7)
    random_state = torch.get_rng_state()
    initialize(host, init_cfg)
    assert_same_state(host, state)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_projector__narrow_in_a_head():
    """The embedded anchors keep the channels of the features, and the last layer its scale."""
    head = SemanticAnchorHead(5, 64, projector=dict(channels=16), anchors=dict(type='GaussianAnchors', dim=12))
    assert [tuple(parameter.shape) for name, parameter in head.named_parameters() if name.endswith('weight')] == [
        (16, 12), (16,), (16, 16), (16,), (64, 16), (64,)
    ]  # fmt: skip
    assert head.projector[6].weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    losses = head.train().loss(torch.randn(8, 64), torch.randint(5, (8,)), nn.Linear(64, 5))
    assert losses['loss_anchor'] > 0 and head.semantic_anchors.shape == (5, 64)


@pytest.mark.parametrize(
    ('projector', 'message'),
    [
        (dict(channels=0), r'`projector\.channels` to be an integer of at least 1, but got 0'),
        (dict(chanels=8), r"`projector\.chanels` to be one of \['channels'\].*did you mean channels\?"),
        (16, r'`projector` to be a dict, such as dict\(channels=256\), but got 16'),
    ],
)
def test_projector__wrong_options_of_a_head(projector, message):
    with pytest.raises(ValueError, match=message):
        SemanticAnchorHead(5, 8, projector=projector)
