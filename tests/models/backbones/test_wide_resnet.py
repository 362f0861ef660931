import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sar_mm.models.backbones import WideResNet
from sar_mm.registry import MODELS


def images(channels=3, size=32, count=4):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def count_by_formula(depth, widen_factor, num_classes):
    """Weights of convolutions, two per channel that is normalised, and a linear classifier."""
    channels = [16] + [width * widen_factor for width in (16, 32, 64)]
    total = 3 * 16 * 9 + 2 * channels[-1] + (channels[-1] + 1) * num_classes
    for before, after in zip(channels, channels[1:]):
        blocks = (depth - 4) // 6
        total += 9 * before * after + (2 * blocks - 1) * 9 * after**2 + 2 * before + (2 * blocks - 1) * 2 * after
        total += before * after if before != after else 0
    return total


def randomise(model):
    """Other than initial values everywhere, the running statistics included."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if value.dim() == 1:
            value.copy_(torch.rand(value.shape, generator=generator) + ('bias' not in name) * 0.5)
    return model


def by_formula(state, x, depth, training):
    """The network of the semi-supervised papers from nothing but a state dict."""

    def activate(x, name):
        mean, var = state[f'{name}.running_mean'], state[f'{name}.running_var']
        if training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        scale = state[f'{name}.weight'] / (var + 1e-3).sqrt()
        x = (x - mean[:, None, None]) * scale[:, None, None] + state[f'{name}.bias'][:, None, None]
        return torch.where(x > 0, x, 0.1 * x)

    x = F.conv2d(x, state['stem.weight'], padding=1)
    for stage in range(3):
        for block in range((depth - 4) // 6):
            name = f'stages.{stage}.{block}'
            stride = 2 if stage > 0 and block == 0 else 1
            activated = activate(x, f'{name}.bn1')
            out = F.conv2d(activated, state[f'{name}.conv1.weight'], stride=stride, padding=1)
            out = F.conv2d(activate(out, f'{name}.bn2'), state[f'{name}.conv2.weight'], padding=1)
            if f'{name}.shortcut.weight' in state:
                x = F.conv2d(activated if stage == 0 else x, state[f'{name}.shortcut.weight'], stride=stride)
            x = x + out
    return activate(x, 'norm')


# 1.5 M for WRN-28-2 in Oliver et al.; 36.5 M for WRN-28-10 and 8.9 M for WRN-40-4 in table 4 of the paper.
@pytest.mark.parametrize(
    ('depth', 'widen_factor', 'parameters'),
    [(28, 2, 1_467_610), (28, 10, 36_479_194), (40, 4, 8_949_210), (16, 8, 10_961_370), (10, 1, 77_850)],
)
def test_wide_resnet__has_the_published_number_of_parameters(depth, widen_factor, parameters):
    model = MODELS.build(dict(type='WideResNet', depth=depth, widen_factor=widen_factor))
    assert count(model) + count(nn.Linear(64 * widen_factor, 10)) == parameters
    assert count_by_formula(depth, widen_factor, 10) == parameters


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    ('depth', 'widen_factor', 'channels', 'size'), [(10, 1, 1, 28), (16, 2, 3, 32), (28, 2, 3, 32), (10, 3, 3, 15)]
)
def test_wide_resnet__equals_the_formula(depth, widen_factor, channels, size, training):
    model = randomise(WideResNet(depth, widen_factor, channels)).train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = images(channels, size)
    with torch.no_grad():
        (found,) = model(x)
        expected = by_formula(state, x, depth, training)
    assert found.shape == (4, 64 * widen_factor, -(-size // 4), -(-size // 4))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_wide_resnet__every_parameter_gets_a_gradient():
    model = WideResNet(16, drop_rate=0.1)
    model.init_weights()
    (feature,) = model(images())
    assert feature.shape == (4, 128, 8, 8)
    feature.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_wide_resnet__initial_weights_are_kaiming():
    torch.manual_seed(0)
    model = WideResNet()
    model.init_weights()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            std = (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5  # fan out, as in FixMatch's code
            assert module.weight.std().item() == pytest.approx(std, rel=0.15), name
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()


@pytest.mark.parametrize('momentum', [0.001, 0.1, 1.0])
def test_wide_resnet__momentum_of_the_running_statistics(momentum):
    options = {} if momentum == 0.001 else dict(bn_momentum=momentum)
    model = WideResNet(10, 1, **options)
    x = images()
    model(x)
    mean = model.stem(x).mean((0, 2, 3))
    torch.testing.assert_close(model.stages[0][0].bn1.running_mean, momentum * mean)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {momentum} and len(norms) == 7


def test_wide_resnet__drops_in_training_only():
    model = WideResNet(10, 1, drop_rate=0.5)
    x = images()
    with torch.no_grad():
        assert not torch.equal(model(x)[0], model(x)[0])
        model.eval()
        assert torch.equal(model(x)[0], model(x)[0])


def test_wide_resnet__in_a_classifier():
    registry = pytest.importorskip('mmpretrain.registry')
    pytest.importorskip('mmpretrain.models')
    from mmpretrain.structures import DataSample

    model = registry.MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='WideResNet', depth=10),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=128),
        )
    )
    model.init_weights()
    samples = [DataSample().set_gt_label(label) for label in range(4)]
    losses = model(images(), samples, mode='loss')
    assert losses['loss'].item() == pytest.approx(2.3, abs=0.3)
    losses['loss'].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('depth', 26),
        ('depth', 4),
        ('depth', 28.0),
        ('widen_factor', 0),
        ('widen_factor', 1.5),
        ('in_channels', 0),
        ('drop_rate', 1.0),
        ('drop_rate', -0.1),
        ('drop_rate', '0.1'),
        ('bn_momentum', 0.0),
        ('bn_momentum', 1.5),
        ('bn_momentum', None),
    ],
)
def test_wide_resnet__names_wrong_arguments(option, value):
    with pytest.raises(ValueError, match=f'`{option}`.*but got'):
        WideResNet(**{option: value})
