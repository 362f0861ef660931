import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sar_mm.models.backbones import CIFARResNet
from sar_mm.models.backbones.cifar_resnet import BasicBlock
from sar_mm.registry import MODELS


def images(channels=3, size=32, count=4):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def randomise(model):
    """Other than initial values everywhere, the running statistics included."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if value.dim() == 1:
            value.copy_(torch.rand(value.shape, generator=generator) + ('bias' not in name) * 0.5)
    return model


def by_formula(state, x, depth, training):
    """He et al.'s network from nothing but a state dict."""

    def norm(x, name):
        mean, var = state[f'{name}.running_mean'], state[f'{name}.running_var']
        if training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        scale = state[f'{name}.weight'] / (var + 1e-5).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + state[f'{name}.bias'][:, None, None]

    x = norm(F.conv2d(x, state['stem.0.weight'], padding=1), 'stem.1').clamp(min=0)
    outputs = []
    for stage in range(3):
        for block in range((depth - 2) // 6):
            name = f'stages.{stage}.{block}'
            stride = 2 if stage > 0 and block == 0 else 1
            out = F.conv2d(x, state[f'{name}.conv1.weight'], stride=stride, padding=1)
            out = F.conv2d(norm(out, f'{name}.bn1').clamp(min=0), state[f'{name}.conv2.weight'], padding=1)
            if stride == 2:
                zeros = torch.zeros(len(x), x.shape[1] // 2, *out.shape[2:])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            x = (norm(out, f'{name}.bn2') + x).clamp(min=0)
        outputs.append(x)
    return outputs


# 0.27, 0.46, 0.66, 0.85 and 1.7 M in table 6 of the paper
@pytest.mark.parametrize(
    ('depth', 'parameters'), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_cifar_resnet__has_the_published_number_of_parameters(depth, parameters):
    assert count(MODELS.build(dict(type='CIFARResNet', depth=depth))) + count(nn.Linear(64, 10)) == parameters


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(('depth', 'channels', 'size'), [(8, 1, 28), (20, 3, 32), (32, 3, 32), (14, 3, 15)])
def test_cifar_resnet__equals_the_formula(depth, channels, size, training):
    model = randomise(CIFARResNet(depth, channels, out_indices=(0, 1, 2))).train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = images(channels, size)
    with torch.no_grad():
        found = model(x)
        expected = by_formula(state, x, depth, training)
    shapes = [(4, 16, size, size), (4, 32, -(-size // 2), -(-size // 2)), (4, 64, -(-size // 4), -(-size // 4))]
    assert [tuple(each.shape) for each in found] == shapes
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_cifar_resnet__out_indices():
    model = CIFARResNet(8, base_channels=4, out_indices=[2, 0]).eval()
    assert [tuple(each.shape) for each in model(images())] == [(4, 16, 8, 8), (4, 4, 32, 32)]
    assert [tuple(each.shape) for each in CIFARResNet(8)(images())] == [(4, 64, 8, 8)]


def test_cifar_resnet__shortcut_by_hand():
    x = torch.arange(1.0, 33.0).reshape(1, 2, 4, 4)
    halved = BasicBlock(2, 4, stride=2).shortcut(x)
    assert halved.tolist() == [[[[0, 0], [0, 0]], [[1, 3], [9, 11]], [[17, 19], [25, 27]], [[0, 0], [0, 0]]]]
    assert BasicBlock(2, 2, stride=1).shortcut(x) is x
    # One added channel has no half to put in front.
    assert BasicBlock(1, 2, stride=2).shortcut(x[:, :1]).tolist() == [[[[1, 3], [9, 11]], [[0, 0], [0, 0]]]]


def test_cifar_resnet__initial_weights_are_kaiming():
    torch.manual_seed(0)
    model = CIFARResNet()
    model.init_weights()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            std = (2 / (9 * module.in_channels)) ** 0.5  # fan in, as in the code of Cao et al.
            assert module.weight.std().item() == pytest.approx(std, rel=0.15), name
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 3])
def test_cifar_resnet__frozen_stages_do_not_change(frozen_stages):
    model = CIFARResNet(14, base_channels=4, frozen_stages=frozen_stages)
    model.init_weights()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    if frozen_stages < 3:
        model(images())[0].square().mean().backward()
    optimizer.step()
    model(images())
    after = model.state_dict()
    for index, (prefix, part) in enumerate(
        [('stem.', model.stem), *((f'stages.{i}.', model.stages[i]) for i in range(3))]
    ):
        frozen = index <= frozen_stages
        for name in (name for name in before if name.startswith(f'{prefix}.')):
            assert torch.equal(before[name], after[name]) == frozen, name
        assert all(parameter.requires_grad != frozen for parameter in part.parameters())
        assert all(module.training != frozen for module in part.modules())
    assert not any(module.training for module in model.eval().modules())


def test_cifar_resnet__norm_eval():
    model = CIFARResNet(8, norm_eval=True).train()
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert model.training and model.stages[0][0].conv1.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_cifar_resnet__in_a_classifier():
    registry = pytest.importorskip('mmpretrain.registry')
    pytest.importorskip('mmpretrain.models')
    from mmpretrain.structures import DataSample

    model = registry.MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='CIFARResNet', depth=8, in_channels=1),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=64),
        )
    )
    model.init_weights()
    samples = [DataSample().set_gt_label(label) for label in range(4)]
    losses = model(images(1, 28), samples, mode='loss')
    assert losses['loss'].item() == pytest.approx(2.3, abs=0.3)
    losses['loss'].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('depth', 18),
        ('depth', 2),
        ('depth', 32.0),
        ('in_channels', 0),
        ('base_channels', -1),
        ('out_indices', (3,)),
        ('out_indices', ()),
        ('out_indices', 2),
        ('frozen_stages', 4),
        ('frozen_stages', -2),
    ],
)
def test_cifar_resnet__names_wrong_arguments(option, value):
    with pytest.raises(ValueError, match=f'`{option}`.*but got'):
        CIFARResNet(**{option: value})
