"""to_stock.py: parts of semi-supervised models, and weights with prefixes."""

import pytest
import torch
from conversions import MODEL_CONFIGS, TRUST, assert_same_output, build, training_checkpoint, without_anchors
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from torch import nn


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
