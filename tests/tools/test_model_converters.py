"""to_stock.py, from the command line to the file."""

import pytest
import torch
from conversions import MODEL_CONFIGS, NEW_TORCH, TRUST, assert_same_output, build, training_checkpoint, without_anchors
from mmengine.config import Config


@pytest.mark.parametrize('kind', ['cls', 'vit', 'seg', 'cascade'])
def test_to_stock__result_loads_strictly_into_the_stock_model(kind, convert, saved, make_model):
    model, source, out = saved(kind)
    printed = convert('to_stock', source, out, *TRUST)
    number = sum('anchor_head' in name for name in model.state_dict())
    assert f'{number} tensors of semantic anchors dropped' in printed

    checkpoint = torch.load(out, weights_only=True)
    assert checkpoint.keys() == {'meta', 'state_dict'}
    if NEW_TORCH:
        assert checkpoint['meta'] == dict(epoch=3, iter=30, dataset_meta=dict(classes=('a', 'b')))
    stock = make_model(kind, sar=False)
    stock.load_state_dict(checkpoint['state_dict'], strict=True)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in stock.state_dict().items())


def test_to_stock__half_precision(convert, saved, make_model):
    model, source, out = saved('cls')
    convert('to_stock', source, out, '--half', *TRUST)
    weights = torch.load(out, weights_only=True)['state_dict']
    assert {weight.dtype for weight in weights.values()} == {torch.float16, torch.int64}
    assert out.stat().st_size < 0.6 * sum(weight.numel() for weight in weights.values()) * 4 + 20_000
    stock = make_model('cls', sar=False)
    stock.load_state_dict(weights, strict=True)
    for name, weight in stock.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name], rtol=1e-3, atol=1e-6)

    checkpoint = torch.load(source, weights_only=False)
    name = next(name for name in checkpoint['state_dict'] if name.endswith('running_var'))
    checkpoint['state_dict'][name] += 1e6
    torch.save(checkpoint, source)
    printed = convert('to_stock', source, out, '--half', *TRUST, code=2)
    assert f'--half: {name} has values above 65504' in printed


@pytest.mark.parametrize('kind', ['cls', 'vit', 'seg', 'cascade', *MODEL_CONFIGS])
def test_to_stock__same_output_bit_for_bit(kind, convert, tmp_path, make_model, make_batch, make_seg_samples):
    if kind in MODEL_CONFIGS:
        scope, config = MODEL_CONFIGS[kind]
        model, stock = build(scope, config), build(scope, without_anchors(config))
        images = torch.randn(2, 3, 64, 64)
        samples = make_seg_samples() if scope == 'mmseg' else make_batch('cls')[1][:2]
    else:
        model, stock = make_model(kind, sar=True), make_model(kind, sar=False)
        images, samples = make_batch(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # so that weights, statistics and semantic anchors are none that a new model has
        sum(value for name, value in model.train().loss(images, samples).items() if 'loss' in name).backward()
        optimizer.step()
    torch.save(training_checkpoint(model), tmp_path / 'trained.pth')
    convert('to_stock', tmp_path / 'trained.pth', tmp_path / 'out.pth', *TRUST)
    stock.load_state_dict(torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict'], strict=True)
    assert_same_output(stock, model, images)


@pytest.mark.parametrize(
    'name',
    [
        'resnet18_1xb64-300iter_digits-lt',
        pytest.param('fcn_unet_1xb16-400iter_digit-scenes-64x64', marks=pytest.mark.slow),
    ],
)
def test_to_stock__checkpoint_of_a_training_run(name, convert, quickstart, tmp_path):
    run = quickstart(name)
    trained = torch.load(run.checkpoint, map_location='cpu', weights_only=False)
    assert {'optimizer', 'message_hub', 'param_schedulers', 'ema_state_dict'} <= trained.keys()
    convert('to_stock', run.checkpoint, tmp_path / 'out.pth', *TRUST)
    converted = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert converted['meta']['dataset_meta']['classes'] == trained['meta']['dataset_meta']['classes']

    models = []
    for path, weights in ((run.stock, converted['state_dict']), (run.sar, trained['state_dict'])):
        config = Config.fromfile(path)
        models.append(build(config.default_scope, config.model))
        models[-1].load_state_dict(weights, strict=True)
    assert_same_output(*models, torch.randn(4, 3, 64, 64))
