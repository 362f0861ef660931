"""Converters of checkpoints, from the command line to the file."""

import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import CheckpointLoader
from torch import nn

from sar_mm.cli.checkpoints import check_checkpoint

TOOLS = Path(__file__).parents[2] / 'tools' / 'model_converters'
NEW_TORCH = hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint')


@pytest.fixture
def convert(run_tool):
    """Run a converter with a command line; return what it prints."""
    return lambda tool, *arguments, code=0: run_tool(TOOLS / f'{tool}.py', *arguments, code=code)


def training_checkpoint(model):
    """What mmengine's runner saves: logs are pickled objects, which PyTorch refuses to load as weights."""
    log = HistoryBuffer()
    log.update(1.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return dict(
        meta=dict(epoch=3, iter=30, dataset_meta=dict(classes=('a', 'b')), logs=[log]),
        state_dict=model.state_dict(),
        message_hub=dict(log_scalars={'train/loss': log}, runtime_info={}),
        optimizer=optimizer.state_dict(),
        param_schedulers=[],
    )


@pytest.fixture
def saved(tmp_path, make_model):
    """Save the training checkpoint of a tiny SAR model."""

    def save(kind):
        model = make_model(kind, sar=True)
        torch.save(training_checkpoint(model), tmp_path / 'trained.pth')
        return model, tmp_path / 'trained.pth', tmp_path / 'sub' / 'out.pth'

    return save


TRUST = [] if NEW_TORCH else ['--trust']


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


NORM = dict(norm_cfg=dict(type='BN'))
SEGMENTOR = dict(type='EncoderDecoder', train_cfg=dict(), test_cfg=ConfigDict(mode='whole'))
PYRAMID = dict(in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=8, num_classes=5, **NORM)
VIT = dict(arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32), img_size=64, patch_size=16)
MIT = dict(type='MixVisionTransformer', embed_dims=8, num_layers=[1] * 4, num_heads=[1, 2, 4, 8])
SWIN = dict(type='SwinTransformer', pretrain_img_size=64, embed_dims=8, depths=[2, 1, 1, 1], num_heads=[1, 1, 2, 2])
MODEL_CONFIGS = dict(
    segformer=('mmseg', dict(SEGMENTOR, backbone=MIT, decode_head=dict(type='SARSegformerHead', **PYRAMID))),
    upernet=(
        'mmseg',
        dict(
            SEGMENTOR,
            backbone=dict(SWIN, window_size=4),
            decode_head=dict(type='SARUPerHead', **PYRAMID),
            auxiliary_head=[dict(type='SARFCNHead', in_channels=32, in_index=2, channels=8, num_classes=5, **NORM)],
        ),
    ),
    deit=(
        'mmpretrain',
        dict(
            type='ImageClassifier',
            backbone=dict(type='DistilledVisionTransformer', **VIT),
            head=dict(type='SARDeiTClsHead', num_classes=5, in_channels=16),
        ),
    ),
    arcface=(
        'mmpretrain',
        dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=8, base_channels=8),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='SARArcFaceClsHead', num_classes=5, in_channels=64),
        ),
    ),
)


def without_anchors(config):
    """The stock config of a SAR one."""
    if isinstance(config, dict):
        kept = {key: without_anchors(value) for key, value in config.items() if key != 'anchor_head'}
        if str(kept.get('type')).startswith('SAR'):
            kept.update(type=kept['type'][len('SAR') :])
        return ConfigDict(kept) if isinstance(config, ConfigDict) else kept
    return [without_anchors(each) for each in config] if isinstance(config, list) else config


def build(scope, config):
    pytest.importorskip(f'{scope}.models')
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(config)


def assert_same_output(stock, model, images):
    stock.eval(), model.eval()
    with torch.no_grad():
        outputs = [each(images) for each in (stock, model)]
        outputs = [output if isinstance(output, (list, tuple)) else [output] for output in outputs]
        assert all(map(torch.equal, *outputs)) and len(outputs[0]) == len(outputs[1])
        for predicted, expected in zip(stock.predict(images), model.predict(images)):
            assert predicted.keys() == expected.keys() != []
            for value, other in zip(predicted.values(), expected.values()):
                assert torch.equal(getattr(value, 'data', value), getattr(other, 'data', other))


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


@pytest.mark.slow
@pytest.mark.parametrize('part', ['student', 'teacher'])
def test_to_stock__checkpoint_of_a_semi_supervised_training_run(part, convert, quickstart, tmp_path):
    run = quickstart('resnet18-fixmatch_1xb20-600iter_digits-40labels')
    semi = build('mmpretrain', Config.fromfile(run.sar).model)
    semi.load_state_dict(torch.load(run.checkpoint, map_location='cpu', weights_only=False)['state_dict'], strict=True)
    convert('to_stock', run.checkpoint, tmp_path / 'out.pth', '--part', part, *TRUST)
    stock = build('mmpretrain', Config.fromfile(run.stock).model.classifier)
    stock.load_state_dict(torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict'], strict=True)
    assert_same_output(stock, semi.student if part == 'student' else semi.teacher.module, torch.randn(4, 3, 16, 16))


@pytest.mark.parametrize('part', ['student', 'teacher'])
def test_to_stock__segmentor_of_a_semi_supervised_model(part, convert, tmp_path):
    scope, config = MODEL_CONFIGS['upernet']
    semi = build(scope, dict(type='SemiSegmentor', segmentor=config, semi=dict(teacher=dict(momentum=0.1))))
    with torch.no_grad():
        for parameter in semi.student.parameters():
            parameter.mul_(1.5)
    torch.save(training_checkpoint(semi), tmp_path / 'trained.pth')
    convert('to_stock', tmp_path / 'trained.pth', tmp_path / 'out.pth', '--part', part, *TRUST)
    stock = build(scope, without_anchors(config))
    stock.load_state_dict(torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict'], strict=True)
    assert_same_output(stock, semi.student if part == 'student' else semi.teacher.module, torch.randn(2, 3, 64, 64))


def prefixed(name, *, whole='', layer=''):
    first, rest = name.split('.', 1)
    return f'{whole}{first}.{layer}{rest}'


@pytest.mark.parametrize(
    'wrapped',
    [
        dict(whole='module.'),
        dict(whole='_orig_mod.'),
        dict(whole='module._orig_mod.'),
        dict(whole='_orig_mod.module.'),
        dict(layer='_orig_mod.'),
    ],
    ids=str,
)
def test_to_stock__weights_saved_from_within_a_wrapper(wrapped, convert, tmp_path, make_model):
    model = make_model('cls', sar=True)
    weights = {prefixed(name, **wrapped): value for name, value in model.state_dict().items()}
    torch.save(weights, tmp_path / 'wrapped.pth')
    convert('to_stock', tmp_path / 'wrapped.pth', tmp_path / 'out.pth')
    found = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    expected = make_model('cls', sar=False).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], model.state_dict()[name]) for name in expected)


def test_to_stock__weights_of_compiled_and_parallel_models(convert, tmp_path, make_model):
    model = torch.compile(make_model('cls', sar=True))
    torch.save(nn.DataParallel(model).state_dict(), tmp_path / 'wrapped.pth')
    convert('to_stock', tmp_path / 'wrapped.pth', tmp_path / 'out.pth')
    weights = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    make_model('cls', sar=False).load_state_dict(weights, strict=True)


class Semi(nn.Module):
    """A student, a teacher as mmengine averages it, and state of the method's own."""

    def __init__(self, student, has_teacher=True):
        super().__init__()
        self.student = student
        if has_teacher:
            self.teacher = ExponentialMovingAverage(student)
            with torch.no_grad():
                for parameter in self.teacher.module.parameters():
                    parameter.add_(1)
        self.register_buffer('threshold', torch.full((5,), 0.95))


@pytest.mark.parametrize('kind', ['cls', 'seg'])
@pytest.mark.parametrize('sar', [False, True], ids=['stock', 'sar'])
@pytest.mark.parametrize(('options', 'part'), [([], 'teacher'), (['--part', 'student'], 'student')])
def test_to_stock__takes_a_part_of_a_semi_supervised_model(kind, sar, options, part, tmp_path, convert, make_model):
    model = Semi(make_model(kind, sar))
    source, out = tmp_path / 'trained.pth', tmp_path / 'out.pth'
    torch.save(training_checkpoint(model), source)
    expected = dict(student=model.student, teacher=model.teacher.module)[part].state_dict()
    others = len(model.state_dict()) - len(expected)

    printed = convert('to_stock', source, out, *options, '--keep-anchors', *TRUST)
    assert f'{len(expected)} tensors of the {part} taken, {others} others dropped' in printed
    assert '0 tensors of semantic anchors dropped' in printed
    kept = torch.load(out, weights_only=True)['state_dict']
    make_model(kind, sar).load_state_dict(kept, strict=True)
    assert all(torch.equal(value, expected[name]) for name, value in kept.items())

    convert('to_stock', source, out, *options, *TRUST)
    kept = torch.load(out, weights_only=True)['state_dict']
    make_model(kind, sar=False).load_state_dict(kept, strict=True)
    assert all(torch.equal(value, expected[name]) for name, value in kept.items())


def test_to_stock__a_semi_supervised_model_without_a_teacher(tmp_path, convert, make_model):
    model = make_model('cls', sar=False)
    source, out = tmp_path / 'trained.pth', tmp_path / 'out.pth'
    torch.save({f'student.{name}': value for name, value in model.state_dict().items()}, source)
    for options in ([], ['--part', 'student'], ['--keep-anchors']):
        convert('to_stock', source, out, *options)
        make_model('cls', sar=False).load_state_dict(torch.load(out, weights_only=True)['state_dict'], strict=True)
        out.unlink()
    message = 'there is no teacher in the checkpoint: no name in it begins with `teacher.module.`; use --part student'
    assert message in convert('to_stock', source, out, '--part', 'teacher', code=2)
    assert not out.exists()


@pytest.mark.parametrize('part', ['student', 'teacher'])
def test_to_stock__part_of_a_model_that_is_not_semi_supervised(part, convert, saved):
    _, source, out = saved('cls')
    printed = convert('to_stock', source, out, '--part', part, *TRUST, code=2)
    assert f'--part {part} is for the checkpoints of semi-supervised models' in printed
    assert 'nothing to drop from the checkpoint: anchors are to be kept' in convert(
        'to_stock', source, out, '--keep-anchors', *TRUST, code=2
    )
    assert not out.exists()


@pytest.mark.parametrize(('kind', 'layer'), [('cls', 'head.fc'), ('seg', 'decode_head.conv_seg')])
@pytest.mark.parametrize('tau', [0.5, 1.0])
def test_tau_normalize__rows_are_divided_by_a_power_of_their_norm(kind, layer, tau, convert, saved, make_model):
    model, source, out = saved(kind)
    weights = model.state_dict()
    with torch.no_grad():
        weights[f'{layer}.weight'].mul_(torch.arange(5.0).reshape(5, *[1] * (weights[f'{layer}.weight'].dim() - 1)))
        weights[f'{layer}.bias'].fill_(3)
    torch.save(training_checkpoint(model), source)
    convert('tau_normalize', source, out, '--tau', tau, '--layer', layer, *TRUST)

    found = torch.load(out, weights_only=True)['state_dict']
    for before, after in zip(weights[f'{layer}.weight'].flatten(1).tolist(), found[f'{layer}.weight'].flatten(1)):
        norm = sum(value * value for value in before) ** 0.5
        expected = [value / norm**tau if norm else 0.0 for value in before]
        assert after.tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(found[f'{layer}.bias'], torch.zeros(5))
    assert found.keys() == weights.keys()
    changed = {name for name in weights if not torch.equal(weights[name], found[name])}
    assert changed == {f'{layer}.weight', f'{layer}.bias'}
    # As tools/test.py does before it tests.
    for sar in (False, True):
        check_checkpoint(SimpleNamespace(model=make_model(kind, sar=sar)), str(out), 'config', to_resume=False)


def test_tau_normalize__zero_changes_nothing(convert, saved):
    model, source, out = saved('cls')
    convert('tau_normalize', source, out, '--tau', 0, *TRUST)
    found = torch.load(out, weights_only=True)['state_dict']
    assert all(torch.equal(value, found[name]) for name, value in model.state_dict().items())


@pytest.mark.skipif(not NEW_TORCH, reason='needs PyTorch 2.6')
def test_converters__run_nothing_that_is_pickled(tmp_path, convert, saved):
    class Harmful:
        def __reduce__(self):
            return eval, (f'open({str(tmp_path / "ran")!r}, "w").close()',)

    model, source, out = saved('cls')
    torch.save(dict(training_checkpoint(model), message_hub=Harmful()), source)
    convert('to_stock', source, out)
    assert out.is_file() and not (tmp_path / 'ran').exists()
    convert('to_stock', source, out, '--trust')
    assert (tmp_path / 'ran').exists()


def test_converters__take_a_bare_state_dict(tmp_path, convert):
    source, out = tmp_path / 'weights.pth', tmp_path / 'out.pth'
    torch.save({'fc.weight': torch.tensor([[3.0, 4.0], [0.0, 0.5]])}, source)
    convert('tau_normalize', source, out, '--layer', 'fc')
    checkpoint = CheckpointLoader.load_checkpoint(str(out), map_location='cpu')
    assert checkpoint['meta'] == {}
    torch.testing.assert_close(checkpoint['state_dict']['fc.weight'], torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--layer', 'head.fcc'], r"`layer` to be .* one of \['head.fc', 'head.other'\], but got 'head.fcc'"),
        (['--layer', 'backbone.fc'], r'`layer`'),
        (['--tau', '1.5'], r'`tau` to be a number in \[0, 1\], but got 1.5'),
        (['--tau', '-0.1'], r'`tau`'),
        (['--tau', 'much'], r'argument --tau: invalid float value'),
    ],
)
def test_tau_normalize__names_wrong_arguments(tmp_path, convert, arguments, message):
    source, out = tmp_path / 'weights.pth', tmp_path / 'out.pth'
    linear = ('head.fc', 'head.other', 'backbone.fc', 'head.anchor_head.projector.0')
    weights = {f'{name}.weight': torch.ones(2, 2) for name in linear}
    torch.save(dict(weights, **{'head.conv.weight': torch.ones(2, 2, 3, 3)}), source)
    assert re.search(message, convert('tau_normalize', source, out, *arguments, code=2))
    assert not out.exists()


def test_converters__files_that_cannot_be_converted(tmp_path, convert):
    source, out = tmp_path / 'source.pth', tmp_path / 'out.pth'

    def refused(*arguments):
        return convert('to_stock', *arguments, code=2)

    assert f'there is no checkpoint {source}' in refused(source, out)
    source.write_bytes(b'not a checkpoint')
    assert f'{source} cannot be read as a checkpoint' in refused(source, out)
    source.write_bytes(pickle.dumps([1, 2]))
    assert 'cannot be read as a checkpoint' in refused(source, out)
    torch.save([1, 2], source)
    assert 'cannot be read as a checkpoint: it holds a list, not a dict' in refused(source, out)
    for content in ({}, dict(state_dict=3), dict(epoch=3)):
        torch.save(content, source)
        assert 'holds no weights' in refused(source, out)
    torch.save({'head.fc.weight': torch.ones(2, 2)}, source)
    nothing = 'there is nothing to drop from the checkpoint: '
    assert f'{nothing}no name in it contains `anchor_head.`, and it is not that of a semi-' in refused(source, out)
    assert 'OUT is CHECKPOINT itself' in refused(source, source)
    assert not out.exists()
